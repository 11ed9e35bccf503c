//! ValidatingAdmissionPolicy: expressions that must hold.

use std::{rc::Rc, sync::Arc};

use hull_api::{
    ApiError, Kind, ObjectExt,
    cel::{Map, Program, Value as Cel},
    kinds::{
        VALIDATING_ADMISSION_POLICIES, VALIDATING_ADMISSION_POLICY_BINDINGS,
        compile_policy_expression,
    },
    selector::LabelSelector,
    status::{Cause, Reason},
};
use hull_store::prefix_range;
use serde_json::Value;

use super::{
    Attributes,
    conditions::{self, Budget, Condition, Seen},
    current,
    matching::Matcher,
    mutations::Mutation,
    objects,
};
use crate::handlers::Backend;

/// Longest message that an expression may make, in bytes; Kubernetes' limit.
const MAX_MESSAGE_BYTES: usize = 5 * 1024;

#[derive(Debug)]
struct Validation {
    expression: String,
    program: Program,
    message: String,
    message_expression: Option<Program>,
    reason: Reason,
}

/// A policy of either kind.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) name: String,
    matcher: Matcher,
    pub(super) conditions: Vec<Condition>,
    variables: Vec<(String, Program)>,
    validations: Vec<Validation>,
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
    deny: bool,
    warn: bool,
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
    let compile = |text: &str| {
        compile_policy_expression(text, params.is_some()).map_err(|error| error.to_string())
    };
    let constraints = object.pointer("/spec/matchConstraints").unwrap_or(&empty);
    let mut policy = Policy {
        name: object.name().to_string(),
        matcher: Matcher::read(constraints, "resourceRules"),
        conditions: Vec::new(),
        variables: Vec::new(),
        validations: Vec::new(),
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
            let program = compile(variable.str_at("/expression"))?;
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
                program: compile(expression)?,
                message: validation.str_at("/message").to_string(),
                message_expression: match validation.str_at("/messageExpression") {
                    "" => None,
                    text => Some(compile(text)?),
                },
                reason: reason_of(validation.str_at("/reason")),
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
        let has = |action: &str| actions.iter().any(|one| one == action);
        Some(Bound {
            policy: policy.clone(),
            name: binding.name().to_string(),
            matcher: binding
                .pointer("/spec/matchResources")
                .map(|resources| Matcher::read(resources, "resourceRules")),
            deny: has("Deny"),
            warn: has("Warn"),
            param_ref: binding
                .pointer("/spec/paramRef")
                .cloned()
                .unwrap_or_default(),
        })
    });
    bound.collect()
}

/// The policies with their bindings.
fn bound(backend: &Backend) -> Arc<Vec<Bound>> {
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

/// Asks every policy that is bound to such a write.
pub(super) fn check(attributes: &Attributes<'_>) -> Result<(), ApiError> {
    let bound = bound(attributes.context.backend);
    if bound.is_empty() {
        return Ok(());
    }
    let seen = Seen::of(attributes);
    for one in bound.iter() {
        if one.concerns(attributes) {
            one.check(attributes, &seen)?;
        }
    }
    Ok(())
}

/// Why a policy is against a write.
struct Refusal {
    message: String,
    reason: Reason,
}

impl Bound {
    /// Policy and binding are about such a write.
    pub(super) fn concerns(&self, attributes: &Attributes<'_>) -> bool {
        let matcher = self.matcher.as_ref();
        matcher.is_none_or(|matcher| matcher.matches(attributes))
            && self.policy.matcher.matches(attributes)
    }

    fn check(&self, attributes: &Attributes<'_>, seen: &Seen) -> Result<(), ApiError> {
        let policy = &self.policy;
        let params = match self.params(attributes) {
            Ok(params) => params,
            Err(why) if policy.fails_closed => {
                return self.refuse(
                    attributes,
                    Refusal {
                        message: why,
                        reason: Reason::Invalid,
                    },
                );
            }
            Err(_) => return Ok(()),
        };
        for params in &params {
            for refusal in self.refusals(attributes, seen, params.as_ref()) {
                self.refuse(attributes, refusal)?;
            }
        }
        Ok(())
    }

    /// Denies or warns, as the binding says.
    fn refuse(&self, attributes: &Attributes<'_>, refusal: Refusal) -> Result<(), ApiError> {
        let context = attributes.context;
        let (policy, binding) = (&self.policy.name, &self.name);
        if self.warn {
            context.warn(format!(
                "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding}': {}",
                refusal.message
            ));
        }
        if !self.deny {
            return Ok(());
        }
        let message = format!(
            "ValidatingAdmissionPolicy '{policy}' with binding '{binding}' denied request: {}",
            refusal.message
        );
        let mut error = ApiError::forbidden(context.kind.resource(), attributes.name(), &message);
        error.reason = refusal.reason;
        error.details.causes.push(Cause {
            reason: String::new(),
            message,
            field: String::new(),
        });
        Err(error)
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

    fn refusals(
        &self,
        attributes: &Attributes<'_>,
        seen: &Seen,
        params: Option<&Value>,
    ) -> Vec<Refusal> {
        let policy = &self.policy;
        let failure = |message: String| {
            if policy.fails_closed {
                vec![Refusal {
                    message,
                    reason: Reason::Invalid,
                }]
            } else {
                Vec::new()
            }
        };
        if let Some(why) = &policy.broken {
            return failure(format!("compilation failed: {why}"));
        }
        let mut budget = Budget::default();
        let mut names = seen.names(attributes);
        names.push(("params", params.map_or(Cel::Null, Cel::json)));
        match conditions::hold(&policy.conditions, &names, &mut budget) {
            Ok(true) => {}
            Ok(false) => return Vec::new(),
            Err(why) => return failure(why),
        }
        self.variables(&mut names, &mut budget);
        let mut refusals = Vec::new();
        for validation in &policy.validations {
            match budget.evaluate(&validation.program, &names) {
                Ok(Cel::Bool(true)) => {}
                Ok(Cel::Bool(false)) => refusals.push(Refusal {
                    message: validation.says(&names, &mut budget),
                    reason: validation.reason,
                }),
                Ok(other) => refusals.extend(failure(format!(
                    "expression '{}' resulted in {} instead of bool",
                    validation.expression,
                    other.type_name()
                ))),
                Err(error) => refusals.extend(failure(format!(
                    "expression '{}' resulted in error: {error}",
                    validation.expression
                ))),
            }
        }
        refusals
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
    fn says<'a>(&'a self, names: &[(&str, Cel<'a>)], budget: &mut Budget) -> String {
        let made = self.message_expression.as_ref().and_then(|program| {
            match budget.evaluate(program, names).ok()? {
                Cel::String(text) => Some(text.as_str().trim().to_string()),
                _ => None,
            }
        });
        let fits = |text: &String| {
            !text.is_empty() && text.len() <= MAX_MESSAGE_BYTES && !text.contains('\n')
        };
        made.filter(fits)
            .unwrap_or_else(|| match self.message.trim() {
                "" => format!("failed expression: {}", self.expression.trim()),
                message => message.to_string(),
            })
    }
}
