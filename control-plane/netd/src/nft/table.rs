//! One table: its fixed frame and the fragments that units add to it.
//!
//! Units may claim the same element (two services with one external address): the first claim is
//! in force until it goes, then the next one is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;

/// Elements in one statement. nft reads long statements slowly, and quotes them in errors.
const ELEMENTS_PER_STATEMENT: usize = 500;

/// The chain of the rules that give maps their types.
const TYPES: &str = "types";

/// nf_tables' address families that are used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6 at the IP hooks.
    Inet,
    /// Frames on bridges.
    Bridge,
    /// Frames at a device's ingress.
    Netdev,
}

impl Family {
    fn as_str(self) -> &'static str {
        match self {
            Family::Inet => "inet",
            Family::Bridge => "bridge",
            Family::Netdev => "netdev",
        }
    }
}

/// A named set or map of the frame.
#[derive(Debug, Clone, Copy)]
pub struct SetDeclaration {
    /// Its name.
    pub name: &'static str,
    /// `set` or `map`.
    pub kind: &'static str,
    /// What stands between its braces.
    pub specification: &'static str,
}

/// A chain of the frame.
#[derive(Debug, Clone)]
pub struct BaseChain {
    /// Its name.
    pub name: &'static str,
    /// `type ... hook ... priority ...;`, of a chain that the kernel calls itself.
    pub hook: Option<&'static str>,
    /// Its rules.
    pub rules: Vec<String>,
}

/// What one unit adds to a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fragment {
    /// Sets by name, with their specification; their elements belong to the kernel.
    pub sets: BTreeMap<String, String>,
    /// Chains by name. A name is one unit's alone.
    pub chains: BTreeMap<String, Chain>,
    /// Elements of the frame's sets and maps.
    pub elements: BTreeMap<ElementKey, Box<str>>,
}

/// A chain of a fragment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// The hook, of a chain that the kernel calls itself.
    pub hook: Option<String>,
    /// The rules.
    pub rules: Vec<String>,
}

/// Which element of which set.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ElementKey {
    set: &'static str,
    key: Box<str>,
}

impl Fragment {
    /// Adds an element of a set.
    pub fn member(&mut self, set: &'static str, key: impl Into<Box<str>>) {
        self.entry(set, key, "");
    }

    /// Adds an element of a map.
    pub fn entry(
        &mut self,
        set: &'static str,
        key: impl Into<Box<str>>,
        value: impl Into<Box<str>>,
    ) {
        let key = ElementKey {
            set,
            key: key.into(),
        };
        self.elements.insert(key, value.into());
    }

    /// Adds a chain that other chains jump to.
    pub fn chain(&mut self, name: impl Into<String>, rules: Vec<String>) {
        self.chains.insert(name.into(), Chain { hook: None, rules });
    }

    /// Adds a chain that the kernel calls.
    pub fn base_chain(&mut self, name: impl Into<String>, hook: String, rules: Vec<String>) {
        let hook = Some(hook);
        self.chains.insert(name.into(), Chain { hook, rules });
    }

    /// The elements of one set: keys and values.
    pub fn elements_of<'a>(
        &'a self,
        set: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str)> + 'a {
        self.elements
            .iter()
            .filter(move |(key, _)| key.set == set)
            .map(|(key, value)| (&*key.key, &**value))
    }
}

/// What changed since the kernel was told, with what it has of each.
#[derive(Debug, Default)]
struct Pending {
    elements: BTreeMap<ElementKey, Option<Box<str>>>,
    chains: BTreeMap<String, Option<Chain>>,
    sets: BTreeMap<String, Option<String>>,
    shared: BTreeSet<String>,
}

/// See the module.
#[derive(Debug)]
pub struct Table {
    family: Family,
    name: &'static str,
    sets: Vec<SetDeclaration>,
    frame: Vec<BaseChain>,
    /// Rules that give maps their types, by the map.
    types: BTreeMap<&'static str, String>,
    shared: BTreeMap<String, Vec<String>>,
    fragments: HashMap<Box<str>, Fragment>,
    claims: HashMap<ElementKey, Vec<Claim>>,
    /// Which unit a chain or set is of.
    owners: HashMap<String, Box<str>>,
    pending: Pending,
}

#[derive(Debug)]
struct Claim {
    unit: Box<str>,
    value: Box<str>,
}

impl Table {
    /// A table with its frame.
    pub fn new(
        family: Family,
        name: &'static str,
        sets: Vec<SetDeclaration>,
        frame: Vec<BaseChain>,
    ) -> Self {
        Table {
            family,
            name,
            sets,
            frame,
            types: BTreeMap::new(),
            shared: BTreeMap::new(),
            fragments: HashMap::new(),
            claims: HashMap::new(),
            owners: HashMap::new(),
            pending: Pending::default(),
        }
    }

    /// Family and name, as nft writes them.
    pub fn id(&self) -> String {
        format!("{} {}", self.family.as_str(), self.name)
    }

    /// Another frame, for the next whole write.
    pub fn replace_frame(&mut self, frame: Vec<BaseChain>) {
        self.frame = frame;
    }

    /// A rule that new elements of a map are told with. nft 1.0.6 forgets the type of a map's
    /// values that the kernel has, and learns it again from a rule in the same transaction.
    pub fn type_by_rule(&mut self, map: &'static str, rule: String) {
        self.types.insert(map, rule);
    }

    /// Makes sure of a chain that several units jump to. It stays: there are few of them, and they
    /// hold nothing that changes.
    pub fn shared_chain(&mut self, name: &str, rules: impl FnOnce() -> Vec<String>) {
        if !self.shared.contains_key(name) {
            self.shared.insert(name.to_string(), rules());
            self.pending.shared.insert(name.to_string());
        }
    }

    /// What a unit adds at present.
    pub fn fragment(&self, unit: &str) -> Option<&Fragment> {
        self.fragments.get(unit)
    }

    /// Elements in force, in all sets and maps.
    pub fn element_count(&self) -> usize {
        self.claims.len()
    }

    /// Replaces what a unit adds; `None` takes everything of it away.
    pub fn set_fragment(&mut self, unit: &str, fragment: Option<Fragment>) {
        let old = self.fragments.remove(unit).unwrap_or_default();
        let new = fragment.unwrap_or_default();
        for key in old.elements.keys() {
            if !new.elements.contains_key(key) {
                self.claim(unit, key, None);
            }
        }
        for (key, value) in &new.elements {
            if old.elements.get(key) != Some(value) {
                self.claim(unit, key, Some(value.clone()));
            }
        }
        note_changes(&old.chains, &new.chains, &mut self.pending.chains);
        note_changes(&old.sets, &new.sets, &mut self.pending.sets);
        for name in old.chains.keys().chain(old.sets.keys()) {
            self.owners.remove(name);
        }
        for name in new.chains.keys().chain(new.sets.keys()) {
            self.owners.insert(name.clone(), unit.into());
        }
        if new != Fragment::default() {
            self.fragments.insert(unit.into(), new);
        }
    }

    fn claim(&mut self, unit: &str, key: &ElementKey, value: Option<Box<str>>) {
        let in_force = |claims: &[Claim]| claims.first().map(|claim| claim.value.clone());
        let claims = self.claims.entry(key.clone()).or_default();
        let before = in_force(claims);
        let position = claims.iter().position(|claim| *claim.unit == *unit);
        match (position, value) {
            (Some(at), Some(value)) => claims[at].value = value,
            (None, Some(value)) => claims.push(Claim {
                unit: unit.into(),
                value,
            }),
            (Some(at), None) => drop(claims.remove(at)),
            (None, None) => {}
        }
        let after = in_force(claims);
        if claims.is_empty() {
            self.claims.remove(key);
        }
        if before != after {
            let pending = self.pending.elements.entry(key.clone());
            pending.or_insert(before);
        }
    }

    fn value(&self, key: &ElementKey) -> Option<&str> {
        Some(&self.claims.get(key)?.first()?.value)
    }

    fn chain(&self, name: &str) -> Option<&Chain> {
        self.fragments.get(self.owners.get(name)?)?.chains.get(name)
    }

    fn set(&self, name: &str) -> Option<&String> {
        self.fragments.get(self.owners.get(name)?)?.sets.get(name)
    }

    /// Says that the kernel has everything that transactions told.
    pub fn commit(&mut self) {
        self.pending = Pending::default();
    }

    /// Takes the kernel's table, in one transaction, from nothing or anything to what it is to
    /// hold.
    pub fn replacement(&self) -> String {
        let id = self.id();
        let mut out = format!("add table {id}\ndelete table {id}\nadd table {id}\n");
        for set in &self.sets {
            line(
                &mut out,
                format_args!(
                    "add {} {id} {} {{ {} }}",
                    set.kind, set.name, set.specification
                ),
            );
        }
        let fragments = || self.fragments.values();
        for (name, specification) in fragments().flat_map(|fragment| &fragment.sets) {
            line(
                &mut out,
                format_args!("add set {id} {name} {{ {specification} }}"),
            );
        }
        for chain in &self.frame {
            declare(&mut out, &id, chain.name, chain.hook);
        }
        for name in self.shared.keys() {
            declare(&mut out, &id, name, None);
        }
        for (name, chain) in fragments().flat_map(|fragment| &fragment.chains) {
            declare(&mut out, &id, name, chain.hook.as_deref());
        }
        for chain in &self.frame {
            rules(&mut out, &id, chain.name, &chain.rules);
        }
        for (name, shared) in &self.shared {
            rules(&mut out, &id, name, shared);
        }
        for (name, chain) in fragments().flat_map(|fragment| &fragment.chains) {
            rules(&mut out, &id, name, &chain.rules);
        }
        let elements = self.claims.iter().filter_map(|(key, claims)| {
            let value = claims.first()?;
            Some((key, Some(&*value.value)))
        });
        elements_statements(&mut out, "add", &id, elements.collect());
        out
    }

    /// What changed since the last commit, or nothing.
    pub fn transaction(&self) -> Option<String> {
        let id = self.id();
        let mut out = String::new();
        let pending = &self.pending;
        for name in pending.sets.keys() {
            // A changed set is not met: its name holds a digest of what it is for.
            if let (Some(specification), None) = (self.set(name), &pending.sets[name]) {
                line(
                    &mut out,
                    format_args!("add set {id} {name} {{ {specification} }}"),
                );
            }
        }
        for name in &pending.shared {
            declare(&mut out, &id, name, None);
        }
        let now: BTreeMap<&String, Option<&Chain>> = pending
            .chains
            .keys()
            .map(|name| (name, self.chain(name)))
            .collect();
        for (name, chain) in &now {
            if let (Some(chain), None) = (chain, &pending.chains[*name]) {
                declare(&mut out, &id, name, chain.hook.as_deref());
            }
        }
        for name in &pending.shared {
            rules(&mut out, &id, name, &self.shared[name]);
        }
        for (name, chain) in &now {
            if let (before, Some(chain)) = (&pending.chains[*name], chain)
                && before.as_ref() != Some(chain)
            {
                if before.is_some() {
                    line(&mut out, format_args!("flush chain {id} {name}"));
                }
                rules(&mut out, &id, name, &chain.rules);
            }
        }
        self.changed_elements(&mut out, &id);
        self.removals(&mut out, &id, &now);
        (!out.is_empty()).then_some(out)
    }

    fn changed_elements(&self, out: &mut String, id: &str) {
        let (mut gone, mut new) = (Vec::new(), Vec::new());
        for (key, before) in &self.pending.elements {
            let now = self.value(key);
            if before.as_deref() == now {
                continue;
            }
            if before.is_some() {
                gone.push((key, None));
            }
            if now.is_some() {
                new.push((key, now));
            }
        }
        elements_statements(out, "delete", id, gone);
        let maps: BTreeSet<&str> = new.iter().map(|(key, _)| key.set).collect();
        let mut types = maps.iter().filter_map(|map| self.types.get(map)).peekable();
        if types.peek().is_some() {
            // Nothing jumps to this chain.
            declare(out, id, TYPES, None);
            line(out, format_args!("flush chain {id} {TYPES}"));
        }
        for rule in types {
            rules(out, id, TYPES, std::slice::from_ref(rule));
        }
        elements_statements(out, "add", id, new);
    }

    fn removals(&self, out: &mut String, id: &str, now: &BTreeMap<&String, Option<&Chain>>) {
        let gone = || {
            now.iter()
                .filter(|(name, chain)| chain.is_none() && self.pending.chains[**name].is_some())
        };
        // First every rule, then the chains: they may jump to each other.
        for (name, _) in gone() {
            line(out, format_args!("flush chain {id} {name}"));
        }
        for (name, _) in gone() {
            line(out, format_args!("delete chain {id} {name}"));
        }
        for (name, before) in &self.pending.sets {
            if before.is_some() && self.set(name).is_none() {
                line(out, format_args!("delete set {id} {name}"));
            }
        }
    }
}

fn note_changes<T: Clone + PartialEq>(
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    pending: &mut BTreeMap<String, Option<T>>,
) {
    for (name, value) in old {
        if new.get(name) != Some(value) {
            pending
                .entry(name.clone())
                .or_insert_with(|| Some(value.clone()));
        }
    }
    for name in new.keys() {
        if !old.contains_key(name) {
            pending.entry(name.clone()).or_insert(None);
        }
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = out.write_fmt(text);
    out.push('\n');
}

fn declare(out: &mut String, id: &str, name: &str, hook: Option<&str>) {
    match hook {
        Some(hook) => line(out, format_args!("add chain {id} {name} {{ {hook} }}")),
        None => line(out, format_args!("add chain {id} {name}")),
    }
}

fn rules(out: &mut String, id: &str, chain: &str, rules: &[String]) {
    for rule in rules {
        line(out, format_args!("add rule {id} {chain} {rule}"));
    }
}

fn elements_statements(
    out: &mut String,
    verb: &str,
    id: &str,
    mut elements: Vec<(&ElementKey, Option<&str>)>,
) {
    elements.sort_unstable_by_key(|(key, _)| *key);
    for of_set in elements.chunk_by(|one, next| one.0.set == next.0.set) {
        for some in of_set.chunks(ELEMENTS_PER_STATEMENT) {
            let _ = write!(out, "{verb} element {id} {} {{ ", some[0].0.set);
            for (at, (key, value)) in some.iter().enumerate() {
                let comma = if at == 0 { "" } else { ", " };
                let _ = write!(out, "{comma}{}", key.key);
                if let Some(value) = value.filter(|value| !value.is_empty()) {
                    let _ = write!(out, " : {value}");
                }
            }
            out.push_str(" }\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let sets = vec![SetDeclaration {
            name: "services",
            kind: "map",
            specification: "type ipv4_addr : verdict;",
        }];
        let frame = vec![BaseChain {
            name: "entry",
            hook: Some("type nat hook prerouting priority -100;"),
            rules: vec!["ip daddr vmap @services".into()],
        }];
        Table::new(Family::Inet, "hull", sets, frame)
    }

    fn fragment(address: &str, chain: &str, rule: &str) -> Fragment {
        let mut fragment = Fragment::default();
        fragment.chain(chain, vec![rule.into()]);
        fragment.entry("services", address, format!("goto {chain}"));
        fragment
    }

    #[test]
    fn replacement_names_things_before_they_are_used() {
        let mut table = table();
        table.set_fragment("a", Some(fragment("10.0.0.1", "a-1", "accept")));
        let text = table.replacement();
        let at = |part: &str| {
            text.find(part)
                .unwrap_or_else(|| panic!("{part} in\n{text}"))
        };
        assert!(at("add table inet hull\ndelete table inet hull") == 0);
        assert!(at("add map inet hull services") < at("add rule inet hull entry"));
        assert!(
            at("add chain inet hull a-1")
                < at("add element inet hull services { 10.0.0.1 : goto a-1 }")
        );
    }

    #[test]
    fn a_change_is_told_alone() {
        let mut table = table();
        table.set_fragment("a", Some(fragment("10.0.0.1", "a-1", "accept")));
        table.set_fragment("b", Some(fragment("10.0.0.2", "b-1", "accept")));
        table.commit();
        assert_eq!(table.transaction(), None);
        table.set_fragment("a", Some(fragment("10.0.0.1", "a-1", "drop")));
        assert_eq!(
            table.transaction().unwrap(),
            "flush chain inet hull a-1\nadd rule inet hull a-1 drop\n"
        );
    }

    #[test]
    fn removal_takes_references_away_before_chains() {
        let mut table = table();
        table.set_fragment("a", Some(fragment("10.0.0.1", "a-1", "accept")));
        table.commit();
        table.set_fragment("a", None);
        assert_eq!(
            table.transaction().unwrap(),
            "delete element inet hull services { 10.0.0.1 }\n\
             flush chain inet hull a-1\ndelete chain inet hull a-1\n"
        );
    }

    #[test]
    fn a_changed_element_is_replaced() {
        let mut table = table();
        let of = |value: &str| {
            let mut fragment = Fragment::default();
            fragment.entry("services", "10.0.0.1", value);
            Some(fragment)
        };
        table.set_fragment("a", of("drop"));
        table.commit();
        table.set_fragment("a", of("accept"));
        assert_eq!(
            table.transaction().unwrap(),
            "delete element inet hull services { 10.0.0.1 }\n\
             add element inet hull services { 10.0.0.1 : accept }\n"
        );
        table.set_fragment("a", of("drop"));
        assert_eq!(table.transaction(), None, "changed back before it was told");
    }

    #[test]
    fn first_claim_is_in_force_until_it_goes() {
        let mut table = table();
        let of = |value: &str| {
            let mut fragment = Fragment::default();
            fragment.entry("services", "10.0.0.1", value);
            Some(fragment)
        };
        table.set_fragment("a", of("goto a"));
        table.set_fragment("b", of("goto b"));
        let text = table.transaction().unwrap();
        assert!(
            text.contains("10.0.0.1 : goto a") && !text.contains("goto b"),
            "{text}"
        );
        table.commit();
        table.set_fragment("a", None);
        let text = table.transaction().unwrap();
        assert!(
            text.contains("add element inet hull services { 10.0.0.1 : goto b }"),
            "{text}"
        );
    }

    #[test]
    fn what_comes_and_goes_between_commits_is_not_told() {
        let mut table = table();
        table.set_fragment("a", Some(fragment("10.0.0.1", "a-1", "accept")));
        table.set_fragment("a", None);
        assert_eq!(table.transaction(), None);
    }
}
