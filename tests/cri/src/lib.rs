//! What a CRI client may expect of the `microvm` handler, spec by spec, over the socket of
//! a real hull-shim with real VMs. The specs have the names that the CRI validation suite
//! gave them. See `tests/specs/`; `make test` runs them where KVM is.
