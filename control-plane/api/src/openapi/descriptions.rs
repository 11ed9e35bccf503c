//! What the documents say of types and fields, in Kubernetes' words.
//!
//! The texts are a part of the program's file, read when a document is made: they take no memory
//! before, and none that the kernel could not take back.

use std::collections::HashMap;

/// Packages and their records, see `build.rs`.
static TEXTS: &[(&str, &str)] = &include!(concat!(env!("OUT_DIR"), "/descriptions.rs"));

/// Descriptions by type and field, of the packages that were asked for so far.
#[derive(Default)]
pub(super) struct Descriptions {
    packages: HashMap<&'static str, HashMap<(&'static str, &'static str), &'static str>>,
}

impl Descriptions {
    /// Of a type, `io.k8s.api.core.v1` and `Pod`.
    pub(super) fn of_type(&mut self, package: &'static str, name: &str) -> Option<&'static str> {
        self.of_field(package, name, "")
    }

    /// Of a field of it.
    pub(super) fn of_field(
        &mut self,
        package: &'static str,
        name: &str,
        field: &str,
    ) -> Option<&'static str> {
        let known = self
            .packages
            .entry(package)
            .or_insert_with(|| read(package));
        known.get(&(name, field)).copied()
    }
}

fn read(package: &str) -> HashMap<(&'static str, &'static str), &'static str> {
    let text = TEXTS.iter().find(|(name, _)| *name == package);
    let records = text.iter().flat_map(|(_, text)| text.split('\u{1e}'));
    records
        .filter_map(|record| {
            let mut parts = record.splitn(3, '\u{1f}');
            Some(((parts.next()?, parts.next()?), parts.next()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::schema;

    #[test]
    fn types_and_fields_are_described() {
        let mut descriptions = Descriptions::default();
        let core = "io.k8s.api.core.v1";
        let of_pod = descriptions.of_type(core, "Pod").unwrap();
        assert!(
            of_pod.starts_with("Pod is a collection of containers"),
            "{of_pod}"
        );
        let image = descriptions.of_field(core, "Container", "image").unwrap();
        assert!(image.starts_with("Container image name."), "{image}");
        let protocol = descriptions.of_field(core, "ContainerPort", "protocol");
        assert!(
            protocol.unwrap().ends_with("Defaults to \"TCP\"."),
            "escapes are undone"
        );
        assert!(descriptions.of_field(core, "Container", "nope").is_none());
    }

    #[test]
    fn nearly_every_field_has_its_description() {
        let mut descriptions = Descriptions::default();
        let (mut all, mut described) = (0, 0);
        for object in schema().types() {
            for field in &object.fields {
                let package = object.open_api_package;
                let text = descriptions.of_field(package, object.name, &field.name);
                assert!(text.is_none_or(|text| !text.is_empty()));
                all += 1;
                described += usize::from(text.is_some());
            }
        }
        assert!(described * 100 > all * 95, "{described} of {all}");
    }
}
