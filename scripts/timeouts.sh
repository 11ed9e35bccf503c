# Time-outs of the scripts. Sourced, not run; also by POSIX shells.

# scaled SECONDS: SECONDS on hardware, longer where HULL_TIMEOUT_SCALE says so.
scaled() { awk "BEGIN { print int($1 * ${HULL_TIMEOUT_SCALE:-1}) }"; }
