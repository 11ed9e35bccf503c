use std::io::Write;

use tar::{Builder, EntryType, Header};

use super::*;
use crate::layer::TreeLimits;

const LIMITS: TreeLimits = TreeLimits {
    max_entries: 1000,
    max_metadata_bytes: 1 << 20,
};

/// Builds one layer's archive.
struct Layer(Builder<Vec<u8>>);

impl Layer {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn entry(mut self, kind: EntryType, path: &str, link: &str, data: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        // The checked setter refuses `..`, and hostile layers are what is tested here.
        let name = &mut header.as_old_mut().name;
        name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_link_name_literal(link).unwrap();
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    fn file(self, path: &str) -> Self {
        self.entry(EntryType::Regular, path, "", path.as_bytes())
    }

    fn directory(self, path: &str) -> Self {
        self.entry(EntryType::Directory, path, "", b"")
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path, target, b"")
    }

    fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Link, path, target, b"")
    }
}

fn merge(layers: impl IntoIterator<Item = Layer>) -> Result<Tree, LayerFault> {
    let mut tree = Tree::new(LIMITS);
    for (number, layer) in layers.into_iter().enumerate() {
        let mut spool = tempfile::tempfile().unwrap();
        spool.write_all(&layer.0.into_inner().unwrap()).unwrap();
        apply_layer(&mut tree, &spool, number)?;
    }
    Ok(tree)
}

/// All paths of the tree, directories with a slash, sorted.
fn paths(tree: &Tree) -> Vec<String> {
    let mut all = Vec::new();
    let mut ahead = vec![(String::new(), Tree::ROOT)];
    while let Some((path, node)) = ahead.pop() {
        for (name, link) in tree.children(node).into_iter().flatten() {
            let child = format!("{path}{}", String::from_utf8_lossy(name));
            if tree.children(link.node).is_some() {
                ahead.push((format!("{child}/"), link.node));
                all.push(format!("{child}/"));
            } else {
                all.push(child);
            }
        }
    }
    all.sort();
    all
}

fn merged_paths(layers: impl IntoIterator<Item = Layer>) -> Vec<String> {
    paths(&merge(layers).unwrap())
}

#[test]
fn a_later_layer_replaces_a_file() {
    let tree = merge([
        Layer::new().file("a/x"),
        Layer::new().file("a/x").file("a/y"),
    ])
    .unwrap();
    assert_eq!(paths(&tree), ["a/", "a/x", "a/y"]);
    let directory = tree.child(Tree::ROOT, b"a").unwrap();
    let file = tree.child(directory, b"x").unwrap();
    assert!(matches!(&tree.node(file).content, Content::File(range) if range.layer == 1));
}

#[test]
fn a_file_replaces_a_directory_with_its_content_and_back() {
    let layers = [Layer::new().file("a/x"), Layer::new().file("a")];
    assert_eq!(merged_paths(layers), ["a"]);
    let layers = [
        Layer::new().file("a"),
        Layer::new().directory("a").file("a/x"),
    ];
    assert_eq!(merged_paths(layers), ["a/", "a/x"]);
}

#[test]
fn a_directory_over_a_directory_keeps_the_content() {
    let layers = [Layer::new().file("a/x"), Layer::new().directory("a")];
    assert_eq!(merged_paths(layers), ["a/", "a/x"]);
}

#[test]
fn a_whiteout_hides_what_lower_layers_brought() {
    let layers = [
        Layer::new().file("a/x").file("a/y").file("b/z"),
        Layer::new().file("a/.wh.x").file(".wh.b"),
    ];
    assert_eq!(merged_paths(layers), ["a/", "a/y"]);
}

#[test]
fn a_whiteout_leaves_what_its_own_layer_brings_in_any_order() {
    for layer in [
        Layer::new().file("a/.wh.x").file("a/x"),
        Layer::new().file("a/x").file("a/.wh.x"),
    ] {
        assert_eq!(
            merged_paths([Layer::new().file("a/x"), layer]),
            ["a/", "a/x"]
        );
    }
}

#[test]
fn an_opaque_whiteout_empties_a_directory_of_lower_content() {
    for layer in [
        Layer::new()
            .file("a/.wh..wh..opq")
            .file("a/new")
            .file("a/sub/new"),
        Layer::new()
            .file("a/new")
            .file("a/sub/new")
            .file("a/.wh..wh..opq"),
    ] {
        let lower = Layer::new().file("a/old").file("a/sub/old").file("keep");
        assert_eq!(
            merged_paths([lower, layer]),
            ["a/", "a/new", "a/sub/", "a/sub/new", "keep"]
        );
    }
}

#[test]
fn a_whiteout_of_nothing_is_no_error() {
    let layers = [
        Layer::new().file("a"),
        Layer::new().file("no/.wh.x").file(".wh.y"),
    ];
    assert_eq!(merged_paths(layers), ["a"]);
    assert_eq!(
        merged_paths([Layer::new().file("a/.wh..wh.plnk").file("b")]),
        ["b"]
    );
}

#[test]
fn hard_links_are_one_node_and_survive_the_first_name() {
    let layers = [
        Layer::new()
            .file("a")
            .hard_link("b", "a")
            .hard_link("c", "/a"),
        Layer::new().file(".wh.a"),
    ];
    let tree = merge(layers).unwrap();
    assert_eq!(paths(&tree), ["b", "c"]);
    assert_eq!(tree.child(Tree::ROOT, b"b"), tree.child(Tree::ROOT, b"c"));
}

#[test]
fn entries_below_a_symbolic_link_land_in_its_target() {
    let layers = [
        Layer::new()
            .directory("usr/bin")
            .symlink("bin", "usr/bin")
            .symlink("abs", "/usr"),
        Layer::new().file("bin/sh").file("abs/lib/x"),
    ];
    let all = merged_paths(layers);
    assert_eq!(
        all,
        [
            "abs",
            "bin",
            "usr/",
            "usr/bin/",
            "usr/bin/sh",
            "usr/lib/",
            "usr/lib/x"
        ]
    );
}

#[test]
fn a_link_of_a_lower_layer_that_climbs_out_leads_nowhere() {
    let layers = [
        Layer::new().symlink("out", "../../../etc"),
        Layer::new().file("out/evil"),
    ];
    let fault = merge(layers).err();
    assert!(matches!(fault, Some(LayerFault::Unsafe { .. })));
}

#[test]
fn symbolic_link_loops_end() {
    let layers = [
        Layer::new().symlink("a", "b").symlink("b", "a"),
        Layer::new().file("a/x"),
    ];
    assert!(matches!(merge(layers), Err(LayerFault::Invalid(_))));
}

#[test]
fn paths_that_climb_out_are_refused() {
    for (number, layer) in [
        Layer::new().file("../evil"),
        Layer::new().file("a/../../evil"),
        Layer::new().directory(".."),
        Layer::new().symlink("../evil", "x"),
        Layer::new().file(".wh..."),
        Layer::new().file("a/.wh..").file("x"),
        Layer::new().hard_link("evil", "../../etc/passwd"),
        Layer::new().hard_link("evil", "/etc/passwd"),
        Layer::new().directory("d").hard_link("evil", "d"),
        Layer::new().hard_link("evil", "/"),
        Layer::new().symlink("out", "../etc").file("out/passwd"),
        Layer::new()
            .symlink("d/out", "../../etc")
            .file("d/out/passwd"),
        Layer::new().symlink("out", "/../etc").file("out/passwd"),
        Layer::new().symlink("out", "../etc").file("out/.wh.passwd"),
    ]
    .into_iter()
    .enumerate()
    {
        let fault = merge([layer]).err();
        assert!(
            matches!(fault, Some(LayerFault::Unsafe { .. })),
            "layer {number}: {fault:?}"
        );
    }
    let fault = merge([Layer::new().file("../evil")]).err().unwrap();
    let cause = fault.in_layer(2).to_string();
    assert_eq!(cause, "unsafe path in layer 2: ../evil: it has a `..`");
}

#[test]
fn an_entry_below_an_absolute_link_stays_in_the_image() {
    let layer = Layer::new()
        .directory("run")
        .symlink("var/run", "/run")
        .file("var/run/pid");
    let tree = merge([layer]).unwrap();
    assert_eq!(paths(&tree), ["run/", "run/pid", "var/", "var/run"]);
}

#[test]
fn entries_below_a_file_are_refused() {
    let layers = [Layer::new().file("a"), Layer::new().file("a/b")];
    assert!(matches!(merge(layers), Err(LayerFault::Invalid(_))));
}

#[test]
fn absolute_and_climbing_symbolic_link_targets_are_content() {
    let tree = merge([Layer::new().symlink("a", "/etc").symlink("b", "../../x")]).unwrap();
    assert_eq!(paths(&tree), ["a", "b"]);
}

#[test]
fn too_many_entries_are_refused() {
    let mut layer = Layer::new();
    for number in 0..=LIMITS.max_entries {
        layer = layer.file(&format!("f{number}"));
    }
    assert!(matches!(merge([layer]), Err(LayerFault::TooLarge { .. })));
}

#[test]
fn keeps_container_attributes_and_drops_host_ones() {
    let mut metadata = Metadata {
        xattrs: [
            "user.b",
            "user.a",
            "security.capability",
            "security.selinux",
            "trusted.overlay.opaque",
            "user.overlay.redirect",
            "system.posix_acl_access",
            "user.a",
            "nonsense",
        ]
        .iter()
        .enumerate()
        .map(|(number, name)| (name.as_bytes().to_vec(), vec![number as u8]))
        .collect(),
        ..Metadata::default()
    };
    keep_known_xattrs(&mut metadata, b"x").unwrap();
    let kept: Vec<_> = metadata
        .xattrs
        .iter()
        .map(|(name, value)| (std::str::from_utf8(name).unwrap(), value[0]))
        .collect();
    assert_eq!(
        kept,
        [
            ("security.capability", 2),
            ("system.posix_acl_access", 6),
            ("user.a", 7),
            ("user.b", 0)
        ]
    );
}

#[test]
fn reads_a_file_through_links_as_a_container_would() {
    let layers = [Layer::new()
        .file("usr/lib/passwd")
        .symlink("etc/passwd", "../usr/lib/passwd")
        .symlink("etc/loop", "loop")];
    let mut tree = merge(layers).unwrap();
    let found = tree.file(&[b"etc", b"passwd"]).unwrap().unwrap();
    assert_eq!(found.bytes, "usr/lib/passwd".len() as u64);
    assert!(tree.file(&[b"etc", b"loop"]).unwrap().is_none());
    assert!(tree.file(&[b"etc", b"group"]).unwrap().is_none());
}
