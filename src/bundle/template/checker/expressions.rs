//! The expressions of a template, and what each may hold.

use minijinja::machinery::ast::{BinOp, BinOpKind, Call, CallArg, CallType, Expr, Filter, Test};
use minijinja::machinery::{Span, ast};

use super::{Checker, DYNAMIC, Kind, MADE, Mention, NAMESPACE, SUM, element, is_constant};
use crate::bundle::template::names::{Effect, LOOP, TESTS, effect};
use crate::bundle::template::problem::{at, unknown_filter, unknown_function, unknown_method, unknown_test};
use crate::parse_error::ParseError;
use crate::sentence::suggestion;

// === impl Checker ===

impl<'a> Checker<'a> {
    pub(super) fn expr(&mut self, expr: &Expr<'a>) -> Result<Kind, ParseError> {
        if let Some(path) = path(expr) {
            return self.reference(path, expr.span());
        }
        match expr {
            Expr::Const(_) | Expr::Var(_) => Ok(Kind::Scalar),
            Expr::GetAttr(attribute) => Ok(element(self.expr(&attribute.expr)?)),
            Expr::GetItem(item) => {
                self.expr(&item.subscript_expr)?;
                if let Some(above) = path(&item.expr) {
                    let path = above.into_iter().chain([DYNAMIC.to_owned()]).collect();
                    self.mentions.push(Mention { line: item.span().start_line.into(), path, is_local: false });
                }
                Ok(element(self.expr(&item.expr)?))
            }
            Expr::Slice(slice) => {
                for bound in [&slice.start, &slice.stop, &slice.step].into_iter().flatten() {
                    self.expr(bound)?;
                }
                self.expr(&slice.expr)
            }
            Expr::UnaryOp(operation) => self.expr(&operation.expr).map(|_| Kind::Scalar),
            Expr::BinOp(operation) => self.operation(operation),
            Expr::Compare(compare) => {
                self.expr(&compare.expr)?;
                compare.ops.iter().try_for_each(|operation| self.expr(&operation.expr).map(drop))?;
                Ok(Kind::Scalar)
            }
            Expr::IfExpr(choice) => {
                self.expr(&choice.test_expr)?;
                let kind = self.expr(&choice.true_expr)?;
                let other = choice.false_expr.as_ref().map_or(Ok(Kind::Scalar), |other| self.expr(other))?;
                Ok(kind.max(other))
            }
            Expr::Filter(filter) => self.filter(filter),
            Expr::Test(test) => self.test(test),
            Expr::Call(call) => self.call(call, call.span()),
            Expr::List(list) => self.literal(expr, &mut list.items.iter()),
            Expr::Tuple(tuple) => self.literal(expr, &mut tuple.items.iter()),
            Expr::Map(map) => self.literal(expr, &mut map.keys.iter().chain(&map.values)),
        }
    }

    /// A name, and what is asked for below it.
    fn reference(&mut self, path: Vec<String>, span: Span) -> Result<Kind, ParseError> {
        let kind = path.first().and_then(|name| self.kinds.get(name.as_str())).copied();
        let steps = path.len() - 1;
        if self.loops > 0 && kind.is_none() && path.first().is_some_and(|name| name == "loop") {
            return match path.get(1) {
                Some(name) if !LOOP.contains(&name.as_str()) => {
                    Err(at(span, &format!("unknown name \"loop.{name}\"{}", suggestion(name, &LOOP))))
                }
                _ => Ok(Kind::Part),
            };
        }
        self.mentions.push(Mention { line: span.start_line.into(), path, is_local: false });
        match kind {
            Some(Kind::Namespace) if steps == 0 => Err(at(span, NAMESPACE)),
            Some(Kind::Namespace) => Ok(Kind::Part),
            kind => Ok((0..steps).fold(kind.unwrap_or(Kind::Part), |kind, _| element(kind))),
        }
    }

    fn literal(&mut self, literal: &Expr<'a>, items: &mut dyn Iterator<Item = &Expr<'a>>) -> Result<Kind, ParseError> {
        let mut kind = Kind::Flat;
        for item in items {
            let of_item = self.expr(item)?;
            let is_written = matches!(item, Expr::List(_) | Expr::Tuple(_) | Expr::Map(_)) || is_dict(item);
            if of_item > Kind::Part {
                if of_item == Kind::Sum {
                    return Err(at(item.span(), SUM));
                }
                if !is_written {
                    return Err(at(
                        item.span(),
                        "a list goes into another one only where both are written: [[…], […]]",
                    ));
                }
                kind = Kind::Nested;
            }
        }
        Ok(if is_constant(literal) { Kind::Part } else { kind })
    }

    fn operation(&mut self, operation: &ast::Spanned<BinOp<'a>>) -> Result<Kind, ParseError> {
        let (left, right) = (self.expr(&operation.left)?, self.expr(&operation.right)?);
        let span = operation.span();
        match operation.op {
            BinOpKind::ScAnd | BinOpKind::ScOr => Ok(left.max(right)),
            BinOpKind::Add | BinOpKind::Concat if left.max(right) >= Kind::Flat => Err(at(span, MADE)),
            BinOpKind::Add if left == Kind::Scalar || right == Kind::Scalar => Ok(Kind::Scalar),
            BinOpKind::Add => Ok(Kind::Sum),
            BinOpKind::Mul if left.max(right) > Kind::Scalar => {
                Err(at(span, "* repeats text and lists: write | int behind each value to multiply numbers"))
            }
            BinOpKind::Concat if left.max(right) == Kind::Sum => Err(at(span, SUM)),
            _ => Ok(Kind::Scalar),
        }
    }

    fn arguments(&mut self, arguments: &[CallArg<'a>], span: Span) -> Result<(), ParseError> {
        for argument in arguments {
            let (CallArg::Pos(value) | CallArg::Kwarg(_, value)) = argument else {
                return Err(at(span, "* and ** before arguments are not known here: write them one by one"));
            };
            match self.expr(value)? {
                Kind::Scalar | Kind::Part => {}
                Kind::Sum => return Err(at(value.span(), SUM)),
                _ => return Err(at(value.span(), MADE)),
            }
        }
        Ok(())
    }

    fn filter(&mut self, filter: &ast::Spanned<Filter<'a>>) -> Result<Kind, ParseError> {
        let (name, span) = (filter.name, filter.span());
        let Some(effect) = effect(name) else { return Err(at(span, &unknown_filter(name))) };
        if let (Effect::Default, Some(Expr::Var(variable))) = (effect, &filter.expr) {
            self.probed.insert(variable.id);
        }
        let base = filter.expr.as_ref().map_or(Ok(Kind::Scalar), |value| self.expr(value))?;
        self.arguments(&filter.args, span)?;
        match effect {
            Effect::Reduce => Ok(Kind::Scalar),
            Effect::OwnScalar if base <= Kind::Sum => Ok(Kind::Scalar),
            _ if base == Kind::Sum => Err(at(span, SUM)),
            Effect::Element => Ok(element(base)),
            Effect::List => Self::list_filter(filter, base),
            Effect::Pairs | Effect::Default => Ok(base.max(Kind::Part)),
            Effect::Scalar | Effect::OwnScalar | Effect::Split if base >= Kind::Flat => Err(at(span, MADE)),
            Effect::Split => Ok(Kind::Part),
            Effect::Scalar | Effect::OwnScalar => Ok(Kind::Scalar),
        }
    }

    /// Filters that take the name of a filter or a test.
    fn list_filter(filter: &ast::Spanned<Filter<'a>>, base: Kind) -> Result<Kind, ParseError> {
        let span = filter.span();
        let mut positional = filter.args.iter().filter_map(|argument| match argument {
            CallArg::Pos(value) => Some(value),
            _ => None,
        });
        let named = match filter.name {
            "map" | "select" | "reject" => positional.next(),
            "selectattr" | "rejectattr" => positional.nth(1),
            _ => None,
        };
        let list = base.max(Kind::Part);
        let Some(named) = named else {
            let is_variable = |argument: &CallArg<'_>| matches!(argument, CallArg::Kwarg("default", value) if !matches!(value, Expr::Const(_)));
            if filter.name == "map" && filter.args.iter().any(is_variable) {
                return Err(at(span, "map takes a constant for its default"));
            }
            return Ok(list);
        };
        let word = match named {
            Expr::Const(constant) => constant.value.as_str().map(str::to_owned),
            _ => None,
        };
        let Some(word) = word else {
            return Err(at(
                span,
                &format!("{} takes a name in quotes, such as {}(\"upper\")", filter.name, filter.name),
            ));
        };
        if filter.name != "map" {
            return if TESTS.contains(&word.as_str()) { Ok(list) } else { Err(at(span, &unknown_test(&word))) };
        }
        match effect(&word) {
            None => Err(at(span, &unknown_filter(&word))),
            Some(Effect::Default) => Err(at(span, "map cannot fill in defaults: write them in a loop")),
            Some(Effect::List | Effect::Pairs | Effect::Split) if base >= Kind::Flat => Ok(Kind::Nested),
            Some(Effect::Scalar | Effect::OwnScalar) if base == Kind::Nested => Err(at(span, MADE)),
            Some(_) => Ok(list),
        }
    }

    fn test(&mut self, test: &ast::Spanned<Test<'a>>) -> Result<Kind, ParseError> {
        let span = test.span();
        if !TESTS.contains(&test.name) {
            return Err(at(span, &unknown_test(test.name)));
        }
        if let ("defined" | "undefined", Expr::Var(variable)) = (test.name, &test.expr) {
            self.probed.insert(variable.id);
        }
        self.expr(&test.expr)?;
        match test.args.as_slice() {
            [CallArg::Pos(list)] if test.name == "in" => self.expr(list).map(drop)?,
            arguments => self.arguments(arguments, span)?,
        }
        Ok(Kind::Scalar)
    }

    pub(super) fn call(&mut self, call: &Call<'a>, span: Span) -> Result<Kind, ParseError> {
        match call.identify_call() {
            CallType::Function("range") => self.arguments(&call.args, span).map(|()| Kind::Part),
            CallType::Function("dict") => {
                let mut values = Vec::new();
                for argument in &call.args {
                    let CallArg::Kwarg(_, value) = argument else {
                        return Err(at(span, "dict takes name=value alone"));
                    };
                    values.push(value);
                }
                self.literal(&call.expr, &mut values.into_iter())
            }
            CallType::Function("namespace") => {
                Err(at(span, "namespace(…) stands behind the = of a set: write {% set ns = namespace() %}"))
            }
            CallType::Function(name) => Err(at(span, &unknown_function(name))),
            CallType::Method(Expr::Var(variable), name @ ("cycle" | "changed")) if variable.id == "loop" => {
                self.arguments(&call.args, span)?;
                let is_empty = !call.args.iter().any(|argument| matches!(argument, CallArg::Pos(_)));
                if is_empty {
                    return Err(at(span, &format!("loop.{name} takes one value or more")));
                }
                Ok(Kind::Part)
            }
            CallType::Method(_, name) => Err(at(span, &unknown_method(name))),
            CallType::Object(_) => Err(at(span, "what stands before ( is not a function")),
        }
    }
}

fn is_dict(expr: &Expr<'_>) -> bool {
    matches!(expr, Expr::Call(call) if matches!(call.identify_call(), CallType::Function("dict")))
}

/// `db.a["b"][0]` as its names.
fn path(mut expr: &Expr<'_>) -> Option<Vec<String>> {
    let mut path = Vec::new();
    loop {
        expr = match expr {
            Expr::Var(variable) => {
                path.push(variable.id.to_owned());
                path.reverse();
                return Some(path);
            }
            Expr::GetAttr(attribute) => {
                path.push(attribute.name.to_owned());
                &attribute.expr
            }
            Expr::GetItem(item) => {
                let Expr::Const(key) = &item.subscript_expr else { return None };
                path.push(key.value.to_string());
                &item.expr
            }
            _ => return None,
        }
    }
}
