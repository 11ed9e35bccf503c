//! The file: an AuthenticationConfiguration (apiserver.config.k8s.io/v1).

use hull_api::cel::{Declared, Program};
use serde::Deserialize;

use super::Issuer;
use super::claims::{ClaimRule, ClaimRules, Source, UserRule, trusts_any_email};
use super::keys::IssuerKeys;
use crate::auth::tokens::ISSUER;

const KIND: &str = "AuthenticationConfiguration";
const VERSIONS: [&str; 2] = [
    "apiserver.config.k8s.io/v1",
    "apiserver.config.k8s.io/v1beta1",
];
/// Issuers of one configuration; Kubernetes' limit.
const MAX_ISSUERS: usize = 64;

/// Why an AuthenticationConfiguration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticationConfigError {
    /// No YAML, or not of this shape.
    #[error("authentication configuration: {0}")]
    Syntax(String),
    /// Another kind or version.
    #[error(
        "authentication configuration: it is {kind} of {api_version}, not AuthenticationConfiguration of apiserver.config.k8s.io/v1"
    )]
    Kind {
        /// What it says it is.
        kind: String,
        /// Of which version.
        api_version: String,
    },
    /// A value that cannot be.
    #[error("authentication configuration: {path}: {why}")]
    Value {
        /// The field.
        path: String,
        /// What is wrong.
        why: String,
    },
}

type Outcome<T> = Result<T, AuthenticationConfigError>;

fn bad<T>(path: impl Into<String>, why: impl Into<String>) -> Outcome<T> {
    Err(AuthenticationConfigError::Value {
        path: path.into(),
        why: why.into(),
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    jwt: Vec<FileIssuer>,
    anonymous: Option<Anonymous>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Anonymous {
    #[serde(default)]
    enabled: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileIssuer {
    issuer: Provider,
    #[serde(default)]
    claim_validation_rules: Vec<FileClaimRule>,
    claim_mappings: Mappings,
    #[serde(default)]
    user_validation_rules: Vec<FileUserRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Provider {
    url: String,
    #[serde(default, rename = "discoveryURL")]
    discovery_url: String,
    #[serde(default)]
    certificate_authority: String,
    audiences: Vec<String>,
    #[serde(default)]
    audience_match_policy: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[derive(Default)]
struct FileClaimRule {
    claim: String,
    required_value: String,
    expression: String,
    message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileUserRule {
    expression: String,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Mappings {
    username: Mapping,
    #[serde(default)]
    groups: Mapping,
    #[serde(default)]
    uid: Mapping,
    #[serde(default)]
    extra: Vec<Extra>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Mapping {
    claim: String,
    prefix: Option<String>,
    expression: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Extra {
    key: String,
    value_expression: String,
}

/// Reads the file's text.
pub(super) fn read(text: &str) -> Outcome<Vec<Issuer>> {
    let options = serde_saphyr::options! { with_snippet: false };
    let file: File = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| AuthenticationConfigError::Syntax(error.to_string()))?;
    if file.kind != KIND || !VERSIONS.contains(&file.api_version.as_str()) {
        return Err(AuthenticationConfigError::Kind {
            kind: file.kind,
            api_version: file.api_version,
        });
    }
    if file.anonymous.is_some_and(|anonymous| anonymous.enabled) {
        return bad("anonymous.enabled", "anonymous requests are unimplemented");
    }
    if file.jwt.len() > MAX_ISSUERS {
        return bad("jwt", format!("must have at most {MAX_ISSUERS} items"));
    }
    let mut issuers: Vec<Issuer> = Vec::new();
    for (index, entry) in file.jwt.into_iter().enumerate() {
        let path = format!("jwt[{index}]");
        if issuers.iter().any(|other| other.url == entry.issuer.url) {
            return bad(format!("{path}.issuer.url"), "duplicate value");
        }
        issuers.push(issuer(&path, entry)?);
    }
    Ok(issuers)
}

fn issuer(path: &str, entry: FileIssuer) -> Outcome<Issuer> {
    let rules = rules(path, &entry)?;
    let (provider, path) = (entry.issuer, format!("{path}.issuer"));
    check_url(&format!("{path}.url"), &provider.url)?;
    if provider.url == ISSUER {
        return bad(format!("{path}.url"), "the cluster's own issuer");
    }
    if !provider.discovery_url.is_empty() {
        check_url(&format!("{path}.discoveryURL"), &provider.discovery_url)?;
    }
    if provider.audiences.is_empty() || provider.audiences.iter().any(String::is_empty) {
        return bad(
            format!("{path}.audiences"),
            "at least one is required, none may be empty",
        );
    }
    match (
        provider.audience_match_policy.as_str(),
        provider.audiences.len(),
    ) {
        ("" | "MatchAny", 1) | ("MatchAny", _) => {}
        _ => {
            return bad(
                format!("{path}.audienceMatchPolicy"),
                "must be MatchAny for multiple audiences, or empty for one",
            );
        }
    }
    let keys = IssuerKeys::new(
        &provider.url,
        &provider.discovery_url,
        &provider.certificate_authority,
    );
    Ok(Issuer {
        keys: keys.or_else(|why| bad(format!("{path}.certificateAuthority"), why))?,
        url: provider.url,
        audiences: provider.audiences,
        rules,
    })
}

/// `https`, and nothing that has no place in an issuer's name.
fn check_url(path: &str, text: &str) -> Outcome<()> {
    let Some(rest) = text.strip_prefix("https://") else {
        return bad(path, "URL scheme must be https");
    };
    if rest.contains(['?', '#', '@']) {
        return bad(
            path,
            "URL must not contain a username, a query or a fragment",
        );
    }
    match text.parse::<http::Uri>() {
        Ok(uri) if uri.host().is_some_and(|host| !host.is_empty()) => Ok(()),
        _ => bad(path, "is no URL"),
    }
}

fn rules(path: &str, entry: &FileIssuer) -> Outcome<ClaimRules> {
    let mappings = &entry.claim_mappings;
    let extra_texts = mappings
        .extra
        .iter()
        .map(|extra| extra.value_expression.as_str());
    let rule_texts = entry
        .claim_validation_rules
        .iter()
        .map(|rule| rule.expression.as_str());
    let others: Vec<&str> = extra_texts.chain(rule_texts).collect();
    let path_of = |part: &str| format!("{path}.claimMappings.{part}");
    if trusts_any_email(&mappings.username.expression, &others) {
        return bad(
            path_of("username.expression"),
            "claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression",
        );
    }
    let Some(username) = source(&path_of("username"), &mappings.username, true)? else {
        return bad(path_of("username"), "claim or expression is required");
    };
    let mut extra: Vec<(String, Program)> = Vec::new();
    for (index, one) in mappings.extra.iter().enumerate() {
        let path = path_of(&format!("extra[{index}]"));
        let known = |(key, _): &(String, Program)| *key == one.key;
        // A domain and a path, as Kubernetes wants them.
        let is_path = one
            .key
            .split_once('/')
            .is_some_and(|(domain, path)| domain.contains('.') && !path.is_empty());
        if !is_path || one.key != one.key.to_lowercase() || extra.iter().any(known) {
            return bad(
                format!("{path}.key"),
                "must be a domain-prefixed path in lower case, and be there once",
            );
        }
        let program = compile(
            &format!("{path}.valueExpression"),
            &one.value_expression,
            "claims",
        )?;
        extra.push((one.key.clone(), program));
    }
    Ok(ClaimRules {
        validation: claim_rules(path, &entry.claim_validation_rules)?,
        username,
        groups: source(&path_of("groups"), &mappings.groups, true)?,
        uid: source(&path_of("uid"), &mappings.uid, false)?,
        extra,
        user_validation: user_rules(path, &entry.user_validation_rules)?,
    })
}

fn compile(path: &str, text: &str, name: &str) -> Outcome<Program> {
    if text.trim().is_empty() {
        return bad(path, "expression is required");
    }
    Program::compile(text, &[Declared::any(name)])
        .or_else(|error| bad(path, format!("compilation failed: {error}")))
}

/// `None`: nothing is said.
fn source(path: &str, mapping: &Mapping, has_prefix: bool) -> Outcome<Option<Source>> {
    match (
        mapping.claim.as_str(),
        mapping.expression.as_str(),
        &mapping.prefix,
    ) {
        ("", "", None) => Ok(None),
        (_, "", _) if mapping.claim.is_empty() => bad(path, "a prefix without a claim"),
        ("", expression, None) => compile(&format!("{path}.expression"), expression, "claims")
            .map(|program| Some(Source::Expression(program))),
        ("", _, Some(_)) => bad(
            format!("{path}.prefix"),
            "prefix can't be set when expression is set",
        ),
        (_, "", None) if has_prefix => bad(
            format!("{path}.prefix"),
            "prefix is required when claim is set. It can be set to an empty string to disable prefixing",
        ),
        (_, "", Some(_)) if !has_prefix => bad(format!("{path}.prefix"), "unknown here"),
        (claim, "", prefix) => Ok(Some(Source::Claim {
            name: claim.to_string(),
            prefix: prefix.clone().unwrap_or_default(),
        })),
        _ => bad(path, "claim and expression can't both be set"),
    }
}

fn claim_rules(path: &str, rules: &[FileClaimRule]) -> Outcome<Vec<ClaimRule>> {
    let mut read = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let path = format!("{path}.claimValidationRules[{index}]");
        read.push(match (rule.claim.as_str(), rule.expression.as_str()) {
            ("", "") => return bad(path, "claim or expression is required"),
            (claim, "") => ClaimRule::Required {
                claim: claim.to_string(),
                value: rule.required_value.clone(),
            },
            ("", expression) => ClaimRule::Expression {
                program: compile(&format!("{path}.expression"), expression, "claims")?,
                message: message(&rule.message, expression),
            },
            _ => return bad(path, "claim and expression can't both be set"),
        });
    }
    Ok(read)
}

fn user_rules(path: &str, rules: &[FileUserRule]) -> Outcome<Vec<UserRule>> {
    let mut read = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let path = format!("{path}.userValidationRules[{index}].expression");
        read.push(UserRule {
            program: compile(&path, &rule.expression, "user")?,
            message: message(&rule.message, &rule.expression),
        });
    }
    Ok(read)
}

fn message(given: &str, expression: &str) -> String {
    match given {
        "" => format!("validation expression {expression:?} failed"),
        _ => given.to_string(),
    }
}
