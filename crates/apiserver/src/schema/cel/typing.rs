//! A small static check of rules: a field that the schema does not have is an error when the CRD is made, not
//! when the first object comes. What cannot be typed simply is let through.

use super::super::{Additional, Node, Type};
use super::value::escape;
use kube_cel::cel::common::ast::{EntryExpr, Expr, IdedExpr};

/// Names in scope with the node each stands for, if known.
type Scope<'a> = Vec<(String, Option<&'a Node>)>;

/// Checks an expression in which `self` and `oldSelf` are `node`.
pub(super) fn check(tree: &IdedExpr, node: &Node) -> Result<(), String> {
    let mut scope = vec![
        ("self".to_owned(), Some(node)),
        ("oldSelf".to_owned(), Some(node)),
    ];
    walk(tree, &mut scope).map(|_| ())
}

/// The node that an expression's value has, if that is plain to see.
fn walk<'a>(tree: &IdedExpr, scope: &mut Scope<'a>) -> Result<Option<&'a Node>, String> {
    match &tree.expr {
        Expr::Ident(name) => Ok(scope
            .iter()
            .rev()
            .find(|(own, _)| own == name)
            .and_then(|(_, node)| *node)),
        Expr::Select(select) => match walk(&select.operand, scope)? {
            Some(node) => field(node, &select.field),
            None => Ok(None),
        },
        Expr::Call(call) => {
            if let Some(target) = &call.target {
                walk(target, scope)?;
            }
            let mut nodes = Vec::new();
            for argument in &call.args {
                nodes.push(walk(argument, scope)?);
            }
            let indexed = nodes
                .first()
                .copied()
                .flatten()
                .filter(|_| call.func_name == "_[_]");
            Ok(indexed.and_then(element))
        }
        Expr::List(list) => {
            for element in &list.elements {
                walk(element, scope)?;
            }
            Ok(None)
        }
        Expr::Map(map) => {
            for entry in &map.entries {
                match &entry.expr {
                    EntryExpr::StructField(field) => {
                        walk(&field.value, scope)?;
                    }
                    EntryExpr::MapEntry(entry) => {
                        walk(&entry.key, scope)?;
                        walk(&entry.value, scope)?;
                    }
                }
            }
            Ok(None)
        }
        Expr::Comprehension(one) => {
            let range = walk(&one.iter_range, scope)?;
            walk(&one.accu_init, scope)?;
            let depth = scope.len();
            // A loop over a list sees items; one over a map or an object sees keys.
            scope.push((
                one.iter_var.clone(),
                range.and_then(|node| node.items.as_deref()),
            ));
            scope.push((one.accu_var.clone(), None));
            walk(&one.loop_cond, scope)?;
            walk(&one.loop_step, scope)?;
            walk(&one.result, scope)?;
            scope.truncate(depth);
            Ok(None)
        }
        Expr::Unspecified | Expr::Literal(_) | Expr::Struct(_) => Ok(None),
    }
}

fn element(node: &Node) -> Option<&Node> {
    match &node.additional {
        Additional::Of(child) => Some(child),
        _ => node.items.as_deref(),
    }
}

fn field<'a>(node: &'a Node, name: &str) -> Result<Option<&'a Node>, String> {
    if let Additional::Of(child) = &node.additional {
        return Ok(Some(child));
    }
    if node.resource && matches!(name, "apiVersion" | "kind" | "metadata") {
        return Ok(None);
    }
    if let Some((_, child)) = node.properties.iter().find(|(key, _)| escape(key) == name) {
        return Ok(Some(child));
    }
    match node.kind {
        Some(Type::Object) if node.preserve || !matches!(node.additional, Additional::None) => {
            Ok(None)
        }
        None => Ok(None),
        Some(Type::Object) => Err(format!("undefined field '{name}'")),
        Some(kind) => Err(format!(
            "type '{}' does not support field selection",
            kind.name()
        )),
    }
}
