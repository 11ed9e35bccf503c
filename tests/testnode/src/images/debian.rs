//! Images made of Debian packages: the busybox layer, and nginx.

use std::path::Path;
use std::process::Command;

use super::layer::{Compression, Layer, Owner, PackedLayer};
use super::{Config, Image, ImagesError, Storage, Style};
use crate::cache::{self, io_error};
use crate::packages;

/// What nginx links to, and itself.
const NGINX_LIBRARIES: [&str; 5] = ["libc6", "libcrypt1", "libpcre2-8-0", "libssl3", "zlib1g"];
const NGINX: [&str; 2] = ["nginx", "nginx-common"];
/// Numeric id of www-data on Debian.
const WWW_DATA: Owner = Owner { uid: 33, gid: 33 };

/// Files of packages that no container needs.
const DROPPED: [&str; 9] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/bug",
    "usr/lib/x86_64-linux-gnu/gconv",
    "etc/init.d",
    "lib/systemd",
    "etc/ufw",
];

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    daemon:x:1:1:daemon:/usr/sbin:/bin/false\n\
    www-data:x:33:33:www-data:/var/www:/bin/false\n\
    app:x:1000:1000:app:/home/app:/bin/sh\n\
    nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
const GROUP: &str = "root:x:0:\ndaemon:x:1:\nwww-data:x:33:\naudio:x:29:app\nstaff:x:50:\n\
    app:x:1000:\nnogroup:x:65534:\n";

/// `access.log` and `error.log` are links to the standard streams.
const NGINX_CONF: &str = "\
user www-data;
worker_processes auto;
pid /run/nginx.pid;
error_log /var/log/nginx/error.log notice;
events { worker_connections 1024; }
http {
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    access_log /var/log/nginx/access.log;
    sendfile on;
    server {
        listen 80 default_server;
        listen [::]:80 default_server;
        root /usr/share/nginx/html;
        index index.html;
    }
}
";

/// The lowest layer of every sample: busybox with its applets, users, the usual directories.
pub fn busybox_layer() -> Result<PackedLayer, ImagesError> {
    let tree = unpack(&["busybox-static"])?;
    let program = ["bin/busybox", "usr/bin/busybox"]
        .map(|path| tree.path().join(path))
        .into_iter()
        .find(|path| path.exists())
        .unwrap_or_default();
    let bytes = std::fs::read(&program).map_err(io_error("reading", &program))?;
    let mut layer = Layer::new();
    for (path, mode) in [
        ("bin", 0o755),
        ("dev", 0o755),
        ("etc", 0o755),
        ("home", 0o755),
        ("proc", 0o555),
        ("root", 0o700),
        ("run", 0o755),
        ("sys", 0o555),
        ("tmp", 0o1777),
        ("usr", 0o755),
        ("var", 0o755),
        ("var/log", 0o755),
    ] {
        layer.directory(path, mode)?;
    }
    layer.owned_directory(
        "home/app",
        0o755,
        Owner {
            uid: 1000,
            gid: 1000,
        },
    )?;
    layer.file("bin/busybox", 0o755, &bytes)?;
    for applet in applets(&program)? {
        layer.symlink(&format!("bin/{applet}"), "busybox")?;
    }
    layer.file("etc/passwd", 0o644, PASSWD.as_bytes())?;
    layer.file("etc/group", 0o644, GROUP.as_bytes())?;
    layer.file(
        "etc/nsswitch.conf",
        0o644,
        b"passwd: files\ngroup: files\nhosts: files dns\n",
    )?;
    layer.pack(Compression::Gzip)
}

fn applets(busybox: &Path) -> Result<Vec<String>, ImagesError> {
    let output = Command::new(busybox)
        .arg("--list")
        .output()
        .map_err(io_error("running", busybox))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // Some applets are in the program only for other uses than containers'.
    let unwanted = |name: &str| name == "busybox" || name == "init" || name == "linuxrc";
    Ok(text
        .lines()
        .filter(|name| !unwanted(name))
        .map(str::to_owned)
        .collect())
}

/// nginx in the foreground, its welcome page on port 80, logging to the standard streams.
pub fn write_nginx(storage: &Storage, busybox: &PackedLayer) -> Result<(), ImagesError> {
    let libraries = unpack(&NGINX_LIBRARIES)?;
    let mut base = Layer::new();
    base.tree(libraries.path(), &wanted)?;
    let base = base.pack(Compression::Gzip)?;

    let server = unpack(&NGINX)?;
    let mut layer = Layer::new();
    let own = |path: &str| wanted(path) && path != "etc/nginx/nginx.conf" && path != "var/log";
    layer.tree(server.path(), &own)?;
    layer.file("etc/nginx/nginx.conf", 0o644, NGINX_CONF.as_bytes())?;
    layer.directory("var/log/nginx", 0o755)?;
    layer.symlink("var/log/nginx/access.log", "/dev/stdout")?;
    layer.symlink("var/log/nginx/error.log", "/dev/stderr")?;
    for name in ["body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        layer.owned_directory(&format!("var/lib/nginx/{name}"), 0o700, WWW_DATA)?;
    }
    let layer = layer.pack(Compression::Gzip)?;

    let config = Config {
        cmd: vec!["nginx", "-g", "daemon off;"],
        env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        ports: vec!["80/tcp"],
        stop_signal: "SIGQUIT",
        ..Config::default()
    };
    let image = Image::new(vec![busybox.clone(), base, layer], &config, Style::Oci)?;
    storage.put("library/nginx", "latest", &image)
}

fn wanted(path: &str) -> bool {
    !DROPPED
        .iter()
        .any(|dropped| Path::new(path).starts_with(dropped))
}

/// Downloads packages and unpacks them over each other.
fn unpack(names: &[&str]) -> Result<tempfile::TempDir, ImagesError> {
    let parent = cache::directory()?;
    let tree = tempfile::Builder::new()
        .prefix(".unpack-")
        .tempdir_in(&parent)
        .map_err(io_error("creating a directory in", &parent))?;
    for name in names {
        packages::unpack(&packages::download(name)?, tree.path())?;
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_whole_directories_and_nothing_that_only_begins_alike() {
        assert!(!wanted("usr/share/doc"));
        assert!(!wanted("usr/share/doc/libc6/copyright"));
        assert!(wanted("usr/share/docs"));
        assert!(wanted("usr/sbin/nginx"));
    }
}
