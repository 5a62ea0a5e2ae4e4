//! The statements of a template: what it sets, which names it asks for, and that nothing it builds grows by itself.

use std::collections::{BTreeMap, BTreeSet};

use minijinja::machinery::ast::{CallArg, CallType, Expr, Stmt};
use minijinja::machinery::{Span, ast};

use super::names::FUNCTIONS;
use super::problem::at;
use crate::parse_error::{ParseError, rule};
use crate::sentence::suggestion;

mod expressions;

/// What an expression may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// One text, number or truth value.
    Scalar,
    /// A part of a secret, or a constant.
    Part,
    /// Two parts with a plus: text, or lists.
    Sum,
    /// A list or map made in the template, of scalars and parts.
    Flat,
    /// The same, with other lists in it.
    Nested,
    /// What `namespace(…)` gives: its attributes alone are values.
    Namespace,
}

/// In a [`Mention`], for a name below another that only the rendering template knows: `db[key]`.
pub const DYNAMIC: &str = "…";

/// A name and what is asked for below it, as the template has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mention {
    /// Where, from 1.
    pub line: usize,
    /// The name first.
    pub path: Vec<String>,
    /// Whether the template itself sets the name.
    pub is_local: bool,
}

#[derive(Default)]
pub(super) struct Checker<'a> {
    /// What the template sets.
    pub(super) kinds: BTreeMap<&'a str, Kind>,
    pub(super) mentions: Vec<Mention>,
    /// Names that the template asks about before it takes them.
    probed: BTreeSet<&'a str>,
    /// Loops around the present place.
    loops: usize,
}

const MADE: &str = "a list or map that is made here goes into a loop, a variable, or | join or | tojson";
const SUM: &str = "+ of two values is not known to be text: write ~ to join text, or | int to add numbers";
const NAMESPACE: &str = "a namespace is used by its attributes alone: write ns.name";

// === impl Checker ===

impl<'a> Checker<'a> {
    pub(super) fn template(&mut self, template: &Stmt<'a>) -> Result<(), ParseError> {
        if let Stmt::Template(template) = template { self.block(&template.children) } else { Ok(()) }
    }

    /// Names that neither the template nor its `from` has.
    pub(super) fn check_names(&self, names: &[&str]) -> Result<(), ParseError> {
        let is_known = |name: &str| {
            names.contains(&name)
                || self.kinds.contains_key(name)
                || self.probed.contains(name)
                || FUNCTIONS.contains(&name)
        };
        let unknown = self.mentions.iter().find_map(|mention| {
            let name = mention.path.first().filter(|name| !is_known(name))?;
            Some((mention.line, name))
        });
        match unknown {
            Some((line, name)) => Err(rule(format!("line {line}: {name:?} is not defined{}", suggestion(name, names)))),
            None => Ok(()),
        }
    }

    fn block(&mut self, statements: &[Stmt<'a>]) -> Result<(), ParseError> {
        statements.iter().try_for_each(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &Stmt<'a>) -> Result<(), ParseError> {
        match statement {
            Stmt::Template(template) => self.block(&template.children),
            Stmt::EmitRaw(_) => Ok(()),
            Stmt::EmitExpr(emit) => {
                let kind = self.expr(&emit.expr)?;
                written(kind, emit.span())
            }
            Stmt::ForLoop(for_loop) => self.for_loop(for_loop),
            Stmt::IfCond(condition) => {
                self.expr(&condition.expr)?;
                self.block(&condition.true_body)?;
                self.block(&condition.false_body)
            }
            Stmt::WithBlock(with) => {
                for (target, value) in &with.assignments {
                    let kind = self.expr(value)?;
                    self.assign(target, kind)?;
                }
                self.block(&with.body)
            }
            Stmt::Set(set) => self.set(&set.target, &set.expr),
            Stmt::SetBlock(set) => {
                self.block(&set.body)?;
                let kind = set.filter.as_ref().map_or(Ok(Kind::Scalar), |filter| self.expr(filter))?;
                self.assign(&set.target, kind)
            }
            Stmt::AutoEscape(escape) => {
                self.expr(&escape.enabled)?;
                self.block(&escape.body)
            }
            Stmt::FilterBlock(filter) => {
                self.block(&filter.body)?;
                let kind = self.expr(&filter.filter)?;
                written(kind, filter.filter.span())
            }
            Stmt::Do(call) => self.call(&call.call, call.span()).map(drop),
        }
    }

    fn for_loop(&mut self, for_loop: &ast::Spanned<ast::ForLoop<'a>>) -> Result<(), ParseError> {
        if for_loop.recursive {
            return Err(at(for_loop.span(), "a loop cannot be recursive: write one loop in another"));
        }
        let kind = self.expr(&for_loop.iter)?;
        if kind == Kind::Sum {
            return Err(at(for_loop.iter.span(), "lists are not added: write one loop after the other"));
        }
        self.assign(&for_loop.target, element(kind))?;
        if let Some(filter) = &for_loop.filter_expr {
            self.expr(filter)?;
        }
        self.loops += 1;
        self.block(&for_loop.body)?;
        self.loops -= 1;
        self.block(&for_loop.else_body)
    }

    fn set(&mut self, target: &Expr<'a>, value: &Expr<'a>) -> Result<(), ParseError> {
        if let (Expr::Var(_), Expr::Call(call)) = (target, value)
            && matches!(call.identify_call(), CallType::Function("namespace"))
        {
            for argument in &call.args {
                let CallArg::Kwarg(_, value) = argument else {
                    return Err(at(call.span(), "namespace takes name=value alone"));
                };
                self.kept(value)?;
            }
            return self.assign(target, Kind::Namespace);
        }
        if let Expr::GetAttr(_) = target {
            self.kept(value)?;
            return self.assign(target, Kind::Part);
        }
        let kind = self.expr(value)?;
        if kind == Kind::Sum {
            return Err(at(value.span(), SUM));
        }
        self.assign(target, kind)
    }

    /// What a namespace keeps from one turn of a loop to the next: nothing that grows by itself.
    fn kept(&mut self, value: &Expr<'a>) -> Result<(), ParseError> {
        let kind = self.expr(value)?;
        let is_plain = match value {
            Expr::Var(_) | Expr::GetAttr(_) | Expr::GetItem(_) => kind == Kind::Part,
            Expr::List(_) | Expr::Tuple(_) | Expr::Map(_) => is_constant(value),
            _ => false,
        };
        if kind == Kind::Scalar || is_plain {
            return Ok(());
        }
        Err(at(
            value.span(),
            "a namespace keeps text, numbers and parts of secrets, not lists that are made: \
                              write ~ to join text, or | int to add numbers",
        ))
    }

    fn assign(&mut self, target: &Expr<'a>, kind: Kind) -> Result<(), ParseError> {
        match target {
            Expr::Var(variable) => {
                let known = self.kinds.entry(variable.id).or_insert(kind);
                if (*known == Kind::Namespace) != (kind == Kind::Namespace) {
                    return Err(at(
                        variable.span(),
                        &format!("{:?} is a namespace in one place, and none in another", variable.id),
                    ));
                }
                *known = kind.max(*known);
                Ok(())
            }
            Expr::List(list) => list.items.iter().try_for_each(|item| self.assign(item, element(kind))),
            Expr::Tuple(tuple) => tuple.items.iter().try_for_each(|item| self.assign(item, element(kind))),
            Expr::GetAttr(attribute) => match &attribute.expr {
                Expr::Var(variable) if self.kinds.get(variable.id) == Some(&Kind::Namespace) => Ok(()),
                _ => Err(at(
                    attribute.span(),
                    "only a namespace takes attributes: write {% set ns = namespace() %} first",
                )),
            },
            other => Err(at(other.span(), "a value is given to a name")),
        }
    }
}

/// What one finds in it.
fn element(kind: Kind) -> Kind {
    match kind {
        Kind::Nested => Kind::Flat,
        _ => Kind::Part,
    }
}

fn written(kind: Kind, span: Span) -> Result<(), ParseError> {
    if kind >= Kind::Flat { Err(at(span, MADE)) } else { Ok(()) }
}

fn is_constant(expr: &Expr<'_>) -> bool {
    match expr {
        Expr::Const(_) => true,
        Expr::List(list) => list.items.iter().all(is_constant),
        Expr::Tuple(tuple) => tuple.items.iter().all(is_constant),
        Expr::Map(map) => map.keys.iter().chain(&map.values).all(is_constant),
        _ => false,
    }
}
