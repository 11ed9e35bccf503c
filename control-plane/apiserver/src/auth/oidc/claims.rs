//! What user a token's claims make.

use std::collections::BTreeMap;

use hull_api::cel::{CALL_COST, OBJECT_COST, Program, Value as Cel};
use serde_json::{Value, json};

use crate::UserInfo;

/// The claim that nobody has to have verified, unless its companion says so.
const EMAIL: &str = "email";
const EMAIL_VERIFIED: &str = "email_verified";

/// From where a part of the user comes.
#[derive(Debug)]
pub(super) enum Source {
    /// A claim, with something in front.
    Claim { name: String, prefix: String },
    /// An expression over `claims`.
    Expression(Program),
}

/// What claims must be.
#[derive(Debug)]
pub(super) enum ClaimRule {
    /// A claim with just this value.
    Required { claim: String, value: String },
    /// An expression that is true; and what to say when it is not.
    Expression { program: Program, message: String },
}

/// What the user must be: an expression over `user`; and what to say when it is not true.
#[derive(Debug)]
pub(super) struct UserRule {
    pub program: Program,
    pub message: String,
}

/// The rules of one issuer.
#[derive(Debug)]
pub(super) struct ClaimRules {
    pub validation: Vec<ClaimRule>,
    pub username: Source,
    pub groups: Option<Source>,
    pub uid: Option<Source>,
    pub extra: Vec<(String, Program)>,
    pub user_validation: Vec<UserRule>,
}

/// What evaluations for one token may still cost.
struct Budget(u64);

impl Budget {
    fn evaluate(&mut self, program: &Program, name: &str, value: &Value) -> Result<Value, String> {
        let allowed = self.0.min(CALL_COST);
        let mut left = allowed;
        let outcome = program.evaluate(&[(name, Cel::json(value))], &mut left);
        self.0 -= allowed - left;
        outcome
            .map(|value| value.to_json())
            .map_err(|error| error.to_string())
    }
}

impl ClaimRules {
    /// The user.
    ///
    /// # Errors
    /// Which rule is broken, or which claim is missing.
    pub(super) fn user(&self, claims: &Value) -> Result<UserInfo, String> {
        let mut budget = Budget(OBJECT_COST);
        for rule in &self.validation {
            rule.check(claims, &mut budget)?;
        }
        let name = self.username(claims, &mut budget)?;
        let groups = match &self.groups {
            Some(source) => source.texts(claims, "groups", &mut budget)?,
            None => Vec::new(),
        };
        let mut user = UserInfo::new(&name, groups);
        if let Some(source) = &self.uid {
            user.uid = source.text(claims, "uid", &mut budget)?;
        }
        let mut extra = BTreeMap::new();
        for (key, program) in &self.extra {
            let value = budget.evaluate(program, "claims", claims)?;
            let texts = texts(&value).ok_or_else(|| wrong(&format!("extra {key:?}"), &value))?;
            if !texts.is_empty() {
                extra.insert(key.clone(), texts);
            }
        }
        user.extra = extra;
        self.check_user(&user, &mut budget)?;
        Ok(user)
    }

    fn username(&self, claims: &Value, budget: &mut Budget) -> Result<String, String> {
        if let Source::Claim { name, .. } = &self.username
            && name == EMAIL
            && claims
                .get(EMAIL_VERIFIED)
                .is_some_and(|verified| *verified != json!(true))
        {
            return Err("the email is not verified".into());
        }
        let name = self.username.text(claims, "username", budget)?;
        match name.as_str() {
            "" => Err("the username is empty".into()),
            _ => Ok(name),
        }
    }

    fn check_user(&self, user: &UserInfo, budget: &mut Budget) -> Result<(), String> {
        if self.user_validation.is_empty() {
            return Ok(());
        }
        // All fields are there, whatever they hold.
        let seen = json!({
            "username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra,
        });
        for rule in &self.user_validation {
            if budget.evaluate(&rule.program, "user", &seen)? != json!(true) {
                return Err(format!("the user is not allowed: {}", rule.message));
            }
        }
        Ok(())
    }
}

impl ClaimRule {
    fn check(&self, claims: &Value, budget: &mut Budget) -> Result<(), String> {
        match self {
            ClaimRule::Required { claim, value } => match claims.get(claim) {
                Some(Value::String(found)) if found == value => Ok(()),
                found => Err(format!("claim {claim:?} is {found:?}, not {value:?}")),
            },
            ClaimRule::Expression { program, message } => {
                match budget.evaluate(program, "claims", claims)? {
                    Value::Bool(true) => Ok(()),
                    _ => Err(format!("the claims are not allowed: {message}")),
                }
            }
        }
    }
}

impl Source {
    fn value(&self, claims: &Value, budget: &mut Budget) -> Result<Value, String> {
        match self {
            Source::Claim { name, .. } => Ok(claims.get(name).cloned().unwrap_or_default()),
            Source::Expression(program) => budget.evaluate(program, "claims", claims),
        }
    }

    fn prefix(&self) -> &str {
        match self {
            Source::Claim { prefix, .. } => prefix,
            Source::Expression(_) => "",
        }
    }

    /// One text, with the prefix.
    fn text(&self, claims: &Value, part: &str, budget: &mut Budget) -> Result<String, String> {
        match self.value(claims, budget)? {
            Value::String(text) => Ok(format!("{}{text}", self.prefix())),
            other => Err(wrong(part, &other)),
        }
    }

    /// A text, several or none, each with the prefix.
    fn texts(
        &self,
        claims: &Value,
        part: &str,
        budget: &mut Budget,
    ) -> Result<Vec<String>, String> {
        let value = self.value(claims, budget)?;
        let texts = texts(&value).ok_or_else(|| wrong(part, &value))?;
        let prefix = self.prefix();
        Ok(texts.iter().map(|text| format!("{prefix}{text}")).collect())
    }
}

fn wrong(part: &str, value: &Value) -> String {
    format!("{part} cannot be {value}")
}

/// A text or a list of texts; nothing and empty texts are none. `None`: something else.
fn texts(value: &Value) -> Option<Vec<String>> {
    let all: Vec<String> = match value {
        Value::Null => Vec::new(),
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().map(str::to_string))
            .collect::<Option<_>>()?,
        _ => return None,
    };
    Some(all.into_iter().filter(|text| !text.is_empty()).collect())
}

/// Whether a text of an expression reads the email without asking whether it was verified.
pub(super) fn trusts_any_email(expression: &str, others: &[&str]) -> bool {
    let reads = |text: &str, claim: &str| text.contains(&format!("claims.{claim}"));
    let unverified = expression.replace("claims.email_verified", "");
    reads(&unverified, EMAIL)
        && ![expression]
            .iter()
            .chain(others)
            .any(|text| reads(text, EMAIL_VERIFIED))
}
