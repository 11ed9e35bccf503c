//! Policies of both kinds with their bindings, read into the form that is evaluated.

use std::{rc::Rc, sync::Arc};

use hull_api::{
    Kind, ObjectExt,
    cel::{Map, Program, Value as Cel},
    kinds::{
        ExpressionPurpose as Purpose, VALIDATING_ADMISSION_POLICIES,
        VALIDATING_ADMISSION_POLICY_BINDINGS, compile_policy_expression,
    },
    selector::LabelSelector,
    status::Reason,
};
use hull_store::prefix_range;
use serde_json::Value;

use super::{
    Attributes,
    annotations::{Action, AuditAnnotation},
    conditions::{self, Budget, Condition},
    current,
    matching::Matcher,
    mutations::Mutation,
    objects,
};
use crate::handlers::Backend;

/// An expression that must hold.
#[derive(Debug)]
pub(super) struct Validation {
    pub(super) expression: String,
    pub(super) program: Program,
    message: String,
    pub(super) message_expression: Option<Program>,
    pub(super) reason: Reason,
}

/// A policy of either kind.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) name: String,
    matcher: Matcher,
    pub(super) conditions: Vec<Condition>,
    variables: Vec<(String, Program)>,
    pub(super) validations: Vec<Validation>,
    pub(super) annotations: Vec<AuditAnnotation>,
    pub(super) mutations: Vec<Mutation>,
    /// It sees once more what others changed after it.
    pub(super) reinvoked: bool,
    /// What cannot be evaluated refuses the write.
    pub(super) fails_closed: bool,
    /// apiVersion and kind.
    param_kind: Option<(String, String)>,
    /// It cannot be used at all.
    pub(super) broken: Option<String>,
}

/// A policy with one of its bindings.
pub(super) struct Bound {
    pub(super) policy: Arc<Policy>,
    pub(super) name: String,
    matcher: Option<Matcher>,
    pub(super) actions: Vec<Action>,
    param_ref: Value,
}

fn reason_of(text: &str) -> Reason {
    match text {
        "Forbidden" => Reason::Forbidden,
        "Unauthorized" => Reason::Unauthorized,
        "RequestEntityTooLarge" => Reason::RequestEntityTooLarge,
        _ => Reason::Invalid,
    }
}

fn read_policy(object: &Value) -> Policy {
    let empty = Value::Null;
    let params = object.pointer("/spec/paramKind");
    let compile = |text: &str, purpose: Purpose| {
        compile_policy_expression(text, purpose, params.is_some())
            .map_err(|error| error.to_string())
    };
    let of_variables = if object.list_at("/spec/mutations").is_empty() {
        Purpose::Variable
    } else {
        Purpose::MutationVariable
    };
    let constraints = object.pointer("/spec/matchConstraints").unwrap_or(&empty);
    let mut policy = Policy {
        name: object.name().to_string(),
        matcher: Matcher::read(constraints, "resourceRules"),
        conditions: Vec::new(),
        variables: Vec::new(),
        validations: Vec::new(),
        annotations: Vec::new(),
        mutations: Vec::new(),
        reinvoked: object.str_at("/spec/reinvocationPolicy") == "IfNeeded",
        fails_closed: object.str_at("/spec/failurePolicy") != "Ignore",
        param_kind: params.map(|kind| {
            let text = |pointer: &str| kind.str_at(pointer).to_string();
            (text("/apiVersion"), text("/kind"))
        }),
        broken: None,
    };
    let mut read = || -> Result<(), String> {
        policy.conditions = conditions::read(object, "/spec/matchConditions", params.is_some())?;
        for variable in object.list_at("/spec/variables") {
            let program = compile(variable.str_at("/expression"), of_variables)?;
            let name = variable.str_at("/name").to_string();
            policy.variables.push((name, program));
        }
        for mutation in object.list_at("/spec/mutations") {
            policy
                .mutations
                .push(Mutation::read(mutation, params.is_some())?);
        }
        for validation in object.list_at("/spec/validations") {
            let expression = validation.str_at("/expression");
            policy.validations.push(Validation {
                expression: expression.to_string(),
                program: compile(expression, Purpose::Validation)?,
                message: validation.str_at("/message").to_string(),
                message_expression: match validation.str_at("/messageExpression") {
                    "" => None,
                    text => Some(compile(text, Purpose::Message)?),
                },
                reason: reason_of(validation.str_at("/reason")),
            });
        }
        for annotation in object.list_at("/spec/auditAnnotations") {
            let expression = annotation.str_at("/valueExpression");
            policy.annotations.push(AuditAnnotation {
                key: annotation.str_at("/key").to_string(),
                expression: expression.to_string(),
                program: compile(expression, Purpose::AuditAnnotation)?,
            });
        }
        Ok(())
    };
    let outcome = read();
    policy.broken = outcome.err();
    policy
}

/// The bindings of a kind with their policies.
pub(super) fn read_all(backend: &Backend, kinds: [&'static Kind; 2]) -> Vec<Bound> {
    let [policies, bindings] = kinds;
    let policies: Vec<Arc<Policy>> = objects(&backend.cache, policies)
        .iter()
        .map(|object| Arc::new(read_policy(object)))
        .collect();
    let bindings = objects(&backend.cache, bindings);
    let bound = bindings.iter().filter_map(|binding| {
        let wanted = binding.str_at("/spec/policyName");
        let policy = policies.iter().find(|policy| policy.name == wanted)?;
        let actions = binding.list_at("/spec/validationActions");
        let actions = actions.iter().filter_map(Value::as_str);
        Some(Bound {
            policy: policy.clone(),
            name: binding.name().to_string(),
            matcher: binding
                .pointer("/spec/matchResources")
                .map(|resources| Matcher::read(resources, "resourceRules")),
            actions: actions.filter_map(Action::parse).collect(),
            param_ref: binding
                .pointer("/spec/paramRef")
                .cloned()
                .unwrap_or_default(),
        })
    });
    bound.collect()
}

/// The policies with their bindings.
pub(super) fn bound(backend: &Backend) -> Arc<Vec<Bound>> {
    let kinds: [&'static Kind; 2] = [
        &VALIDATING_ADMISSION_POLICIES,
        &VALIDATING_ADMISSION_POLICY_BINDINGS,
    ];
    let kept = &backend.dynamic.policies;
    current(kept, &backend.cache, &kinds, || read_all(backend, kinds))
}

/// There are some.
pub(super) fn are_bound(backend: &Backend) -> bool {
    !bound(backend).is_empty()
}

impl Bound {
    /// Policy and binding are about such a write.
    pub(super) fn concerns(&self, attributes: &Attributes<'_>) -> bool {
        let matcher = self.matcher.as_ref();
        matcher.is_none_or(|matcher| matcher.matches(attributes))
            && self.policy.matcher.matches(attributes)
    }

    /// The parameters, each of which the policy is evaluated with; one `None` without any.
    pub(super) fn params(&self, attributes: &Attributes<'_>) -> Result<Vec<Option<Value>>, String> {
        let Some((api_version, kind)) = &self.policy.param_kind else {
            return Ok(vec![None]);
        };
        if self.param_ref.is_null() {
            return Ok(vec![None]);
        }
        let backend = attributes.context.backend;
        let served = backend.kinds.current();
        let kind = served.registry.by_kind(api_version, kind).ok_or_else(|| {
            format!("failed to find resource referenced by paramKind: '{api_version}, Kind={kind}'")
        })?;
        let namespace = match self.param_ref.str_at("/namespace") {
            "" if kind.namespaced => attributes.namespace(),
            namespace => namespace,
        };
        let found: Vec<Value> = match self.param_ref.str_at("/name") {
            "" => {
                let empty = Value::Null;
                let selector = self.param_ref.get("selector").unwrap_or(&empty);
                let selector = LabelSelector::from_object(selector).unwrap_or_default();
                let range = prefix_range(&kind.prefix(namespace));
                let all = backend.cache.snapshot(kind.storage, range).objects;
                let selected = all.iter().filter(|one| one.has_labels(&selector));
                selected.map(|one| one.parsed()).collect()
            }
            name => {
                let key = kind.key(namespace, name);
                let found = backend.cache.get(kind.storage, &key);
                found.iter().map(|one| one.parsed()).collect()
            }
        };
        let allows = self.param_ref.str_at("/parameterNotFoundAction") == "Allow";
        match (found.is_empty(), allows) {
            (true, true) => Ok(Vec::new()),
            (true, false) => Err(
                "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction".to_string(),
            ),
            (false, _) => {
                let custom = kind.strategy.custom();
                let foreign = |one: &Value| custom.as_ref().is_some_and(|c| c.must_convert(one));
                if found.iter().any(foreign) {
                    return Err(format!(
                        "unimplemented: parameters that a webhook would have to convert to {}",
                        kind.group_version()
                    ));
                }
                Ok(found.into_iter().map(|one| Some(kind.to_served(one))).collect())
            }
        }
    }

    /// Adds `variables`: each may use those before it. One that fails is not there, and who
    /// uses it fails too.
    pub(super) fn variables<'a>(
        &'a self,
        names: &mut Vec<(&'static str, Cel<'a>)>,
        budget: &mut Budget,
    ) {
        let mut known: Vec<(Cel<'a>, Cel<'a>)> = Vec::new();
        let position = names.len();
        names.push(("variables", Cel::Map(Map::Owned(Rc::default()))));
        for (name, program) in &self.policy.variables {
            if let Ok(value) = budget.evaluate(program, names) {
                known.push((Cel::owned(name.as_str()), value));
                names[position].1 = Cel::Map(Map::Owned(Rc::new(known.clone())));
            }
        }
    }
}

impl Validation {
    /// What is said when no expression says it better.
    pub(super) fn says(&self) -> String {
        match self.message.trim() {
            "" => format!("failed expression: {}", self.expression.trim()),
            message => message.to_string(),
        }
    }
}
