//! CEL: the rules of `x-kubernetes-validations`, and plain expressions for admission.
//!
//! Expressions are parsed once. Running them is bounded: every turn of every loop counts against a [`Budget`] of
//! turns and of time, so that no rule of a CRD's author can stall the server. The interpreter and its Kubernetes
//! functions come from `kube-cel`; what it cannot do is refused, never skipped.

mod rule;
mod typing;
mod value;

pub(super) use rule::{Rule, validate};
pub(crate) use value::plain;

use kube_cel::KubeCelExt;
use kube_cel::cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr};
use kube_cel::cel::parser::Parser;
use kube_cel::cel::{Context, ExecutionError, Value};
use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest expression (Kubernetes has no limit but that of the object; ours keeps parsing cheap).
const MOST_BYTES: usize = 16 * 1024;
/// Turns of loops for one object.
const MOST_TURNS: u64 = 1_000_000;
/// Time for one object. Rules of sane CRDs take microseconds.
const MOST_TIME: Duration = Duration::from_secs(2);
/// Longest list that an expression makes out of nothing.
const MOST_RANGE: i64 = 100_000;
/// The function that every loop's condition is wrapped in; `@` keeps it out of reach of expressions.
const TURN: &str = "@turn";

thread_local! {
    /// All functions of Kubernetes' CEL. Building the table costs more than most rules.
    static FUNCTIONS: Context<'static> = {
        let mut context = Context::default().with_all();
        context.add_function(TURN, turn);
        context.add_function("lists.range", range);
        context
    };
    static LEFT: Cell<Option<(u64, Instant)>> = const { Cell::new(None) };
}

/// A parsed expression.
#[derive(Debug)]
pub(crate) struct Expression {
    tree: IdedExpr,
    /// The text it was parsed from.
    pub(crate) source: String,
}

/// Why an expression gave no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RunError {
    /// The bound on work or time was reached.
    #[error(
        "validation failed due to running out of cost budget, no further validation rules will be run"
    )]
    Budget,
    /// The expression itself failed, such as `no such key: x`.
    #[error("{0}")]
    Failed(String),
}

/// While it lives, expressions that run on this thread share one allowance.
pub(crate) struct Budget(());

impl Budget {
    /// A fresh allowance for one object.
    pub(crate) fn start() -> Self {
        LEFT.set(Some((MOST_TURNS, Instant::now() + MOST_TIME)));
        Self(())
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        LEFT.set(None);
    }
}

impl Expression {
    /// Parses an expression that may use `variables`. The error says where it is wrong.
    pub(crate) fn compile(source: &str, variables: &[&str]) -> Result<Self, String> {
        if source.trim().is_empty() {
            return Err("the expression is empty".into());
        }
        if source.len() > MOST_BYTES {
            return Err(format!("the expression is longer than {MOST_BYTES} bytes"));
        }
        let mut tree = Parser::new()
            .enable_optional_syntax(true)
            .parse(source)
            .map_err(|errors| format!("compilation failed: {}", errors.to_string().trim_end()))?;
        let mut scope: Vec<String> = variables.iter().map(|name| (*name).to_owned()).collect();
        prepare(&mut tree, &mut scope).map_err(|why| format!("compilation failed: {why}"))?;
        Ok(Self {
            tree,
            source: source.to_owned(),
        })
    }

    /// Whether a variable is used anywhere.
    fn uses(&self, variable: &str) -> bool {
        self.tree.references().has_variable(variable)
    }

    /// Runs with variables. Without a [`Budget`] on this thread it makes one of its own.
    pub(crate) fn run(&self, variables: &[(&str, &Value)]) -> Result<Value, RunError> {
        let _own = LEFT.get().is_none().then(Budget::start);
        // Parts of the interpreter are unfinished and panic; a rule must not take the server down.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            FUNCTIONS.with(|functions| {
                let mut scope = functions.new_inner_scope();
                for (name, value) in variables {
                    scope.add_variable_from_value(*name, (*value).clone());
                }
                scope.resolve(&self.tree)
            })
        }));
        if exhausted() {
            return Err(RunError::Budget);
        }
        match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(RunError::Failed(sentence(&error))),
            Err(_) => Err(RunError::Failed(
                "the expression uses something that is not supported".into(),
            )),
        }
    }
}

/// Counts one turn of a loop.
fn turn(condition: bool) -> Result<Value, ExecutionError> {
    let Some((left, deadline)) = LEFT.get() else {
        return Ok(Value::Bool(condition));
    };
    let left = if Instant::now() > deadline {
        0
    } else {
        left.saturating_sub(1)
    };
    LEFT.set(Some((left, deadline)));
    if left == 0 {
        return Err(ExecutionError::function_error(TURN, "out of budget"));
    }
    Ok(Value::Bool(condition))
}

/// `lists.range(n)` with a bound: the library's own would allocate whatever it is asked for.
fn range(count: i64) -> Result<Value, ExecutionError> {
    if !(0..=MOST_RANGE).contains(&count) {
        let why = format!("the length must be between 0 and {MOST_RANGE}");
        return Err(ExecutionError::function_error("lists.range", why));
    }
    Ok(Value::List(Arc::new((0..count).map(Value::Int).collect())))
}

fn exhausted() -> bool {
    LEFT.get().is_some_and(|(left, _)| left == 0)
}

fn sentence(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        other => other.to_string(),
    }
}

/// Refuses what cannot be run (unknown names, struct literals) and wraps every loop's condition in [`TURN`].
fn prepare(node: &mut IdedExpr, scope: &mut Vec<String>) -> Result<(), String> {
    match &mut node.expr {
        Expr::Unspecified => Err("the expression is incomplete".into()),
        Expr::Struct(one) => Err(format!(
            "undeclared reference to '{}' (in container '')",
            one.type_name
        )),
        Expr::Literal(_) => Ok(()),
        Expr::Ident(name) => match name.starts_with('@') || scope.contains(name) || is_type(name) {
            true => Ok(()),
            false => Err(format!(
                "undeclared reference to '{name}' (in container '')"
            )),
        },
        Expr::Select(select) => prepare(&mut select.operand, scope),
        Expr::List(list) => list
            .elements
            .iter_mut()
            .try_for_each(|element| prepare(element, scope)),
        Expr::Map(map) => map
            .entries
            .iter_mut()
            .try_for_each(|entry| match &mut entry.expr {
                EntryExpr::StructField(field) => prepare(&mut field.value, scope),
                EntryExpr::MapEntry(entry) => {
                    prepare(&mut entry.key, scope)?;
                    prepare(&mut entry.value, scope)
                }
            }),
        Expr::Call(call) => {
            let library = call.target.take_if(|target| is_library(target));
            known_function(library.clone(), &call.func_name)?;
            match &mut call.target {
                Some(target) => prepare(target, scope)?,
                None => call.target = library,
            }
            call.args
                .iter_mut()
                .try_for_each(|argument| prepare(argument, scope))
        }
        Expr::Comprehension(comprehension) => {
            prepare(&mut comprehension.iter_range, scope)?;
            prepare(&mut comprehension.accu_init, scope)?;
            let depth = scope.len();
            scope.push(comprehension.iter_var.clone());
            scope.extend(comprehension.iter_var2.clone());
            scope.push(comprehension.accu_var.clone());
            prepare(&mut comprehension.loop_cond, scope)?;
            prepare(&mut comprehension.loop_step, scope)?;
            prepare(&mut comprehension.result, scope)?;
            scope.truncate(depth);
            let condition = std::mem::take(&mut comprehension.loop_cond);
            let call = CallExpr {
                func_name: TURN.into(),
                target: None,
                args: vec![condition],
            };
            comprehension.loop_cond = IdedExpr {
                id: 0,
                expr: Expr::Call(call),
            };
            Ok(())
        }
    }
}

/// `math` in `math.greatest(…)` is no variable.
fn is_library(node: &IdedExpr) -> bool {
    const LIBRARIES: [&str; 10] = [
        "math",
        "sets",
        "strings",
        "lists",
        "base64",
        "format",
        "jsonpatch",
        "optional",
        "ip",
        "cidr",
    ];
    matches!(&node.expr, Expr::Ident(name) if LIBRARIES.contains(&name.as_str()))
}

fn is_type(name: &str) -> bool {
    [
        "bool",
        "bytes",
        "double",
        "int",
        "list",
        "map",
        "null_type",
        "string",
        "type",
        "uint",
    ]
    .contains(&name)
}

/// Asks the interpreter for a function by calling it with nothing.
fn known_function(library: Option<Box<IdedExpr>>, name: &str) -> Result<(), String> {
    // Operators, and what the parser itself makes.
    if name.starts_with(['_', '@', '-', '!']) || matches!(name, "optMap" | "optFlatMap") {
        return Ok(());
    }
    let call = CallExpr {
        func_name: name.to_owned(),
        target: library,
        args: Vec::new(),
    };
    let probe = IdedExpr {
        id: 0,
        expr: Expr::Call(call),
    };
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        FUNCTIONS.with(|functions| functions.resolve(&probe).err())
    }));
    match outcome {
        Ok(Some(ExecutionError::UndeclaredReference(_))) => Err(format!(
            "undeclared reference to '{name}' (in container '')"
        )),
        _ => Ok(()),
    }
}
