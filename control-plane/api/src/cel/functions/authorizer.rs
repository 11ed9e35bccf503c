//! What `authorizer` can be asked: whether somebody may do something.

use std::rc::Rc;

use super::Outcome;
use crate::{
    cel::{
        eval::{EvalError, Run, failed},
        value::Value,
    },
    names,
};

/// What a check costs, in steps: two fit into an expression. Kubernetes' price.
const CHECK_COST: u64 = 350_000;

/// Who answers.
pub trait Authorizer: std::fmt::Debug {
    /// May they do it?
    fn decide(&self, question: &Question) -> Verdict;
}

/// What is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question {
    /// Namespace and name of the service account that it is about; `None`: whoever makes the
    /// request.
    pub service_account: Option<(String, String)>,
    /// What is to be done.
    pub verb: String,
    /// Set when it is about a path instead of a resource.
    pub path: Option<String>,
    /// API group, "" for the core.
    pub group: String,
    /// Plural name.
    pub resource: String,
    /// Or "".
    pub subresource: String,
    /// Or "".
    pub namespace: String,
    /// Or "".
    pub name: String,
    /// As given, or "".
    pub field_selector: String,
    /// As given, or "".
    pub label_selector: String,
}

/// The answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Yes.
    pub allowed: bool,
    /// Why, for people.
    pub reason: String,
    /// Why it could not be told.
    pub error: Option<String>,
}

/// How much of a question has been said.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Authorizer,
    Path,
    Group,
    Resource,
    Decision(Verdict),
}

/// A question on its way, as a value.
#[derive(Debug, Clone)]
pub struct Check<'a> {
    by: &'a dyn Authorizer,
    stage: Stage,
    question: Question,
}

impl<'a> Check<'a> {
    /// The variable `authorizer`; `request` is what `authorizer.requestResource` asks about.
    pub fn new(by: &'a dyn Authorizer, request: Question) -> Self {
        Check {
            by,
            stage: Stage::Authorizer,
            question: request,
        }
    }

    pub(in crate::cel) fn type_name(&self) -> &'static str {
        match self.stage {
            Stage::Authorizer => "kubernetes.authorization.Authorizer",
            Stage::Path => "kubernetes.authorization.PathCheck",
            Stage::Group => "kubernetes.authorization.GroupCheck",
            Stage::Resource => "kubernetes.authorization.ResourceCheck",
            Stage::Decision(_) => "kubernetes.authorization.Decision",
        }
    }

    /// `authorizer.requestResource`.
    pub(in crate::cel) fn field(&self, name: &str) -> Option<Value<'a>> {
        let found = self.stage == Stage::Authorizer && name == "requestResource";
        found.then(|| self.with(Stage::Resource, self.question.clone()))
    }

    fn with(&self, stage: Stage, question: Question) -> Value<'a> {
        Value::Check(Rc::new(Check {
            by: self.by,
            stage,
            question,
        }))
    }

    /// A question of the same somebody that says nothing yet.
    fn anew(&self) -> Question {
        Question {
            service_account: self.question.service_account.clone(),
            ..Question::default()
        }
    }

    fn say(&self, change: impl FnOnce(&mut Question)) -> Value<'a> {
        let mut question = self.question.clone();
        change(&mut question);
        self.with(Stage::Resource, question)
    }

    fn decide(&self, verb: &str) -> Value<'a> {
        let mut question = self.question.clone();
        question.verb = verb.to_string();
        let verdict = self.by.decide(&question);
        self.with(Stage::Decision(verdict), question)
    }
}

pub(super) fn call<'a>(
    run: &mut Run<'_, 'a>,
    name: &str,
    check: &Check<'a>,
    arguments: &[Value<'a>],
) -> Option<Outcome<'a>> {
    let texts: Option<Vec<&str>> = arguments.iter().map(Value::as_str).collect();
    let texts = texts?;
    Some(match (&check.stage, name, texts.as_slice()) {
        (Stage::Authorizer, "path", [path]) => named("path", path).map(|()| {
            let question = Question {
                path: Some((*path).to_string()),
                ..check.anew()
            };
            check.with(Stage::Path, question)
        }),
        (Stage::Authorizer, "group", [group]) => {
            let question = Question {
                group: (*group).to_string(),
                ..check.anew()
            };
            Ok(check.with(Stage::Group, question))
        }
        (Stage::Authorizer, "serviceAccount", [namespace, name]) => {
            service_account(check, namespace, name)
        }
        (Stage::Group, "resource", [resource]) => named("resource", resource)
            .map(|()| check.say(|question| question.resource = (*resource).to_string())),
        (Stage::Resource, "check", [verb]) | (Stage::Path, "check", [verb]) => {
            run.charge(CHECK_COST).map(|()| check.decide(verb))
        }
        (Stage::Resource, part, [text]) => return detail(check, part, text).map(Ok),
        (Stage::Decision(verdict), part, []) => match part {
            "allowed" => Ok(Value::Bool(verdict.allowed)),
            "reason" => Ok(Value::owned(verdict.reason.as_str())),
            "errored" => Ok(Value::Bool(verdict.error.is_some())),
            "error" => Ok(Value::owned(verdict.error.as_deref().unwrap_or(""))),
            _ => return None,
        },
        _ => return None,
    })
}

fn named(what: &str, text: &str) -> Result<(), EvalError> {
    match text.trim() {
        "" => Err(failed(format!("{what} must not be empty"))),
        _ => Ok(()),
    }
}

fn service_account<'a>(check: &Check<'a>, namespace: &str, name: &str) -> Outcome<'a> {
    if !names::subdomain(name).is_empty() {
        return Err(failed("Invalid service account name"));
    }
    if !names::label(namespace).is_empty() {
        return Err(failed("Invalid service account namespace"));
    }
    let mut question = check.question.clone();
    question.service_account = Some((namespace.to_string(), name.to_string()));
    Ok(check.with(Stage::Authorizer, question))
}

/// What narrows a question about a resource.
fn detail<'a>(check: &Check<'a>, part: &str, text: &str) -> Option<Value<'a>> {
    let text = text.to_string();
    Some(match part {
        "subresource" => check.say(|question| question.subresource = text),
        "namespace" => check.say(|question| question.namespace = text),
        "name" => check.say(|question| question.name = text),
        "fieldSelector" => check.say(|question| question.field_selector = text),
        "labelSelector" => check.say(|question| question.label_selector = text),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cel::{CALL_COST, Declared, Program};

    /// Says yes to `get`, and why.
    #[derive(Debug)]
    struct Repeats;

    impl Authorizer for Repeats {
        fn decide(&self, question: &Question) -> Verdict {
            let q = question;
            let who = q.service_account.as_ref();
            let who = who.map_or_else(String::new, |(namespace, name)| {
                format!("{namespace}:{name}")
            });
            Verdict {
                allowed: q.verb == "get",
                reason: format!(
                    "{who}|{}|{}|{}/{}/{}|{}/{}|{}|{}",
                    q.verb,
                    q.path.as_deref().unwrap_or(""),
                    q.group,
                    q.resource,
                    q.subresource,
                    q.namespace,
                    q.name,
                    q.field_selector,
                    q.label_selector
                ),
                error: (q.verb == "fail").then(|| "no answer".to_string()),
            }
        }
    }

    fn ask(source: &str) -> Result<String, String> {
        let program = Program::compile(source, &[Declared::any("authorizer")]);
        let program = program.map_err(|error| error.to_string())?;
        let request = Question {
            group: "apps".to_string(),
            resource: "deployments".to_string(),
            namespace: "here".to_string(),
            name: "web".to_string(),
            ..Question::default()
        };
        let check = Value::Check(Rc::new(Check::new(&Repeats, request)));
        let mut budget = CALL_COST;
        program
            .evaluate(&[("authorizer", check)], &mut budget)
            .map(|value| value.to_json().to_string().replace('"', ""))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn questions_are_built_part_by_part() {
        for (source, answer) in [
            ("authorizer.path('/healthz').check('get').allowed()", "true"),
            (
                "authorizer.path('/healthz').check('put').allowed()",
                "false",
            ),
            (
                "authorizer.path('/healthz').check('get').reason()",
                "|get|/healthz|//|/||",
            ),
            (
                "authorizer.requestResource.check('list').reason()",
                "|list||apps/deployments/|here/web||",
            ),
            (
                "authorizer.group('').resource('pods').subresource('log').namespace('n').name('p').check('get').reason()",
                "|get||/pods/log|n/p||",
            ),
            (
                "authorizer.serviceAccount('n', 'bot').group('g').resource('r').check('get').reason()",
                "n:bot|get||g/r/|/||",
            ),
            (
                "authorizer.group('').resource('pods').fieldSelector('spec.nodeName=a').labelSelector('b').check('list').reason()",
                "|list||/pods/|/|spec.nodeName=a|b",
            ),
            ("authorizer.path('/').check('fail').errored()", "true"),
            ("authorizer.path('/').check('fail').error()", "no answer"),
            ("authorizer.path('/').check('get').error()", ""),
            (
                "type(authorizer) != type(authorizer.requestResource)",
                "true",
            ),
        ] {
            assert_eq!(ask(source).as_deref(), Ok(answer), "{source}");
        }
    }

    #[test]
    fn wrong_questions_are_errors() {
        for (source, error) in [
            ("authorizer.path(' ')", "path must not be empty"),
            (
                "authorizer.group('apps').resource('')",
                "resource must not be empty",
            ),
            (
                "authorizer.serviceAccount('n.m', 'a')",
                "Invalid service account namespace",
            ),
            (
                "authorizer.serviceAccount('n', 'A@')",
                "Invalid service account name",
            ),
            (
                "authorizer.resource('pods')",
                "no such overload: resource(kubernetes.authorization.Authorizer, string)",
            ),
            (
                "authorizer.group('').resource('pods').allowed()",
                "no such overload",
            ),
            ("authorizer.group(1)", "no such overload"),
            (
                "authorizer.nothing",
                "no such overload: kubernetes.authorization.Authorizer.nothing",
            ),
        ] {
            let found = ask(source).unwrap_err();
            assert!(found.contains(error), "{source}: {found}");
        }
    }

    #[test]
    fn two_checks_fit_into_an_expression() {
        let once = "authorizer.path('/').check('get').allowed()";
        assert!(ask(&[once; 2].join(" && ")).is_ok());
        let error = ask(&[once; 3].join(" && ")).unwrap_err();
        assert!(error.contains("actual cost limit exceeded"), "{error}");
    }
}
