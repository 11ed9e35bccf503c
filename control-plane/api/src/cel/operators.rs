//! Operators on values.

use std::cmp::Ordering;

use super::{
    ast::{Binary, Expr},
    eval::{BYTES_PER_STEP, EvalError, Outcome, Run, Scope, failed},
    value::Value,
};

fn no_overload<'a>(operator: Binary, a: &Value<'a>, b: &Value<'a>) -> EvalError {
    EvalError::Overload(format!(
        "{}({}, {})",
        operator.symbol(),
        a.type_name(),
        b.type_name()
    ))
}

impl<'a> Run<'_, 'a> {
    /// `&&` and `||`: an error on one side does not matter when the other side decides.
    pub(super) fn logic(
        &mut self,
        decides: bool,
        left: &'a Expr,
        right: &'a Expr,
        scope: Option<&Scope<'_, 'a>>,
    ) -> Outcome<'a> {
        let truth = |outcome: Outcome<'a>| match outcome {
            Ok(Value::Bool(value)) => Ok(value),
            Ok(other) => Err(EvalError::Overload(format!(
                "{}({})",
                if decides { "_||_" } else { "_&&_" },
                other.type_name()
            ))),
            Err(error) => Err(error),
        };
        match truth(self.eval(left, scope)) {
            Ok(value) if value == decides => Ok(Value::Bool(decides)),
            Err(EvalError::Cost) => Err(EvalError::Cost),
            first => match (first, truth(self.eval(right, scope))) {
                (_, Ok(value)) if value == decides => Ok(Value::Bool(decides)),
                (_, Err(EvalError::Cost)) => Err(EvalError::Cost),
                (Err(error), _) | (Ok(_), Err(error)) => Err(error),
                (Ok(_), Ok(value)) => Ok(Value::Bool(value)),
            },
        }
    }

    pub(super) fn binary(&mut self, operator: Binary, a: &Value<'a>, b: &Value<'a>) -> Outcome<'a> {
        self.spend(a.size().min(b.size()))?;
        match operator {
            Binary::Equal => Ok(Value::Bool(self.equal(a, b)?)),
            Binary::NotEqual => Ok(Value::Bool(!self.equal(a, b)?)),
            Binary::In => match b {
                Value::List(list) => {
                    self.spend(list.len() * BYTES_PER_STEP)?;
                    Ok(Value::Bool(list.iter().any(|item| item.equals(a))))
                }
                Value::Map(map) => Ok(Value::Bool(map.get(a).is_some())),
                _ => Err(no_overload(operator, a, b)),
            },
            Binary::Less | Binary::LessOrEqual | Binary::Greater | Binary::GreaterOrEqual => {
                let nan =
                    matches!((a, b), (Value::Double(x), _) | (_, Value::Double(x)) if x.is_nan());
                let Some(order) = a.order(b) else {
                    return if nan {
                        Ok(Value::Bool(false))
                    } else {
                        Err(no_overload(operator, a, b))
                    };
                };
                Ok(Value::Bool(match operator {
                    Binary::Less => order == Ordering::Less,
                    Binary::LessOrEqual => order != Ordering::Greater,
                    Binary::Greater => order == Ordering::Greater,
                    _ => order != Ordering::Less,
                }))
            }
            _ => self.arithmetic(operator, a, b),
        }
    }

    /// Equality walks both values.
    fn equal(&mut self, a: &Value<'a>, b: &Value<'a>) -> Result<bool, EvalError> {
        if let (Value::List(_) | Value::Map(_), Value::List(_) | Value::Map(_)) = (a, b) {
            self.spend(weight(a).min(weight(b)))?;
        }
        Ok(a.equals(b))
    }

    fn arithmetic(&mut self, operator: Binary, a: &Value<'a>, b: &Value<'a>) -> Outcome<'a> {
        let overflow = || failed("integer overflow");
        match (operator, a, b) {
            (_, Value::Int(a), Value::Int(b)) => whole(operator, *b == 0, || match operator {
                Binary::Add => a.checked_add(*b),
                Binary::Subtract => a.checked_sub(*b),
                Binary::Multiply => a.checked_mul(*b),
                Binary::Divide => a.checked_div(*b),
                _ => a.checked_rem(*b),
            })
            .map(Value::Int),
            (_, Value::Uint(a), Value::Uint(b)) => whole(operator, *b == 0, || match operator {
                Binary::Add => a.checked_add(*b),
                Binary::Subtract => a.checked_sub(*b),
                Binary::Multiply => a.checked_mul(*b),
                Binary::Divide => a.checked_div(*b),
                _ => a.checked_rem(*b),
            })
            .map(Value::Uint),
            (Binary::Add, Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
            (Binary::Subtract, Value::Double(a), Value::Double(b)) => Ok(Value::Double(a - b)),
            (Binary::Multiply, Value::Double(a), Value::Double(b)) => Ok(Value::Double(a * b)),
            (Binary::Divide, Value::Double(a), Value::Double(b)) => Ok(Value::Double(a / b)),
            (Binary::Add, Value::String(a), Value::String(b)) => {
                self.spend(a.as_str().len() + b.as_str().len())?;
                Ok(Value::owned(format!("{}{}", a.as_str(), b.as_str())))
            }
            (Binary::Add, Value::Bytes(a), Value::Bytes(b)) => {
                self.spend(a.len() + b.len())?;
                Ok(Value::Bytes([&**a, &**b].concat().into()))
            }
            (Binary::Add, Value::List(a), Value::List(b)) => {
                self.spend((a.len() + b.len()) * BYTES_PER_STEP)?;
                Ok(Value::list(a.iter().chain(b.iter()).collect()))
            }
            (Binary::Add, Value::Timestamp(time), Value::Duration(by))
            | (Binary::Add, Value::Duration(by), Value::Timestamp(time)) => {
                let sum = time.checked_add(*by).map_err(|_| overflow())?;
                Ok(Value::Timestamp(sum))
            }
            (Binary::Subtract, Value::Timestamp(time), Value::Duration(by)) => {
                let difference = time.checked_sub(*by).map_err(|_| overflow())?;
                Ok(Value::Timestamp(difference))
            }
            (Binary::Subtract, Value::Timestamp(a), Value::Timestamp(b)) => {
                Ok(Value::Duration(a.duration_since(*b)))
            }
            (Binary::Add, Value::Duration(a), Value::Duration(b)) => {
                a.checked_add(*b).map(Value::Duration).ok_or_else(overflow)
            }
            (Binary::Subtract, Value::Duration(a), Value::Duration(b)) => {
                a.checked_sub(*b).map(Value::Duration).ok_or_else(overflow)
            }
            _ => Err(no_overload(operator, a, b)),
        }
    }
}

fn whole<T>(
    operator: Binary,
    by_zero: bool,
    compute: impl Fn() -> Option<T>,
) -> Result<T, EvalError> {
    match operator {
        Binary::Divide if by_zero => return Err(failed("division by zero")),
        Binary::Remainder if by_zero => return Err(failed("modulus by zero")),
        _ => {}
    }
    compute().ok_or_else(|| failed("integer overflow"))
}

/// Everything in a value, counted, as far as it matters.
fn weight(value: &Value<'_>) -> usize {
    const ENOUGH: usize = 1 << 20;
    let mut waiting = vec![value.clone()];
    let mut total: usize = 0;
    while let Some(value) = waiting.pop() {
        total += 1 + value.size();
        if total > ENOUGH {
            break;
        }
        match &value {
            Value::List(list) => waiting.extend(list.iter()),
            Value::Map(map) => waiting.extend(map.entries().map(|(_, value)| value)),
            _ => {}
        }
    }
    total
}
