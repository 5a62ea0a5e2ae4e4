//! Checks of templates where their author sees the answer, before anything of them runs: every name that the text alone
//! decides, and that what a template builds stays as small as its text and its secrets.
//!
//! minijinja's fuel counts what is computed, but not what is copied when a list of lists of lists is written out, and
//! that doubles with each level. So lists that a template makes hold values and parts of secrets, and other lists only
//! where they are written as one literal.

use std::collections::{BTreeMap, BTreeSet};

use minijinja::machinery::ast::{BinOp, BinOpKind, Call, CallArg, CallType, Expr, Filter, Stmt, Test};
use minijinja::machinery::{Span, Token, ast, parse, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Error, ErrorKind};

use self::names::{CONSTANTS, Effect, FILTERS, FUNCTIONS, LOOP, STATEMENTS, TESTS, effect, elsewhere};
use crate::parse_error::{ParseError, rule};
use crate::sentence::suggestion;

mod go;
mod names;

/// Most bytes of one template: half of what minijinja's lexer counts columns with, beyond which it panics.
pub const MAX_TEMPLATE_BYTES: usize = 32 * 1024;

/// Most words and signs of one expression or statement of a template, and most of its `elif`s: the compiler goes as deep.
const MAX_DEPTH: usize = 250;
/// Most statements in statements, and most brackets in brackets: each costs the parser more of its stack than a word.
const MAX_NESTING: usize = 32;

/// What an expression may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
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

/// Checks `text`. `names` are what its `from` calls its secrets, if it has names; `None` if a store decides.
///
/// # Errors
/// One sentence: the line, what is unknown or refused, and what to write.
pub fn check(text: &str, names: Option<&[&str]>) -> Result<(), ParseError> {
    let length = text.len();
    if length > MAX_TEMPLATE_BYTES {
        return Err(rule(format!("a template has at most {MAX_TEMPLATE_BYTES} bytes, and this one has {length}")));
    }
    if let Some(name) = names.unwrap_or_default().iter().find(|name| CONSTANTS.contains(name)) {
        return Err(rule(format!(
            "{name:?} is a constant of templates, not what its from calls so: take another name"
        )));
    }
    check_tokens(text, names.and_then(|names| names.first().copied()))?;
    let template = parse(text, "template", SyntaxConfig::default()).map_err(|error| syntax(&error))?;
    let mut checker = Checker::default();
    checker.template(&template)?;
    if let Some(names) = names {
        checker.check_names(names)?;
    }
    // What the compiler alone knows.
    minijinja::Environment::new().template_from_str(text).map(drop).map_err(|error| syntax(&error))
}

/// The names of all filters.
pub fn filters() -> impl Iterator<Item = &'static str> {
    FILTERS.iter().map(|(name, _)| *name)
}

/// What a template that [`check`] accepts asks for, in the order in which it stands there.
#[must_use]
pub fn mentions(text: &str) -> Vec<Mention> {
    let mut checker = Checker::default();
    if let Ok(template) = parse(text, "template", SyntaxConfig::default()) {
        // What was found before a problem is still of use.
        drop(checker.template(&template));
    }
    for mention in &mut checker.mentions {
        mention.is_local = mention.path.first().is_some_and(|name| checker.kinds.contains_key(name.as_str()));
    }
    checker.mentions
}

fn syntax(error: &Error) -> ParseError {
    let line = error.line().map_or_else(String::new, |line| format!("line {line}: "));
    let detail = match error.kind() {
        ErrorKind::SyntaxError => error.detail().unwrap_or("is not a template"),
        _ => "is not a template",
    };
    rule(format!("{line}{detail}"))
}

fn at(span: Span, problem: &str) -> ParseError {
    rule(format!("line {}: {problem}", span.start_line))
}

/// What would take the parser too deep, and what is not Jinja at all.
fn check_tokens(text: &str, name: Option<&str>) -> Result<(), ParseError> {
    let (mut length, mut branches, mut is_first) = (0, 0, false);
    let mut nesting = Nesting::default();
    for (token, span) in tokenize(text, false, SyntaxConfig::default()).map_while(Result::ok) {
        let starts_block = matches!(token, Token::BlockStart);
        if nesting.goes_on(&token, is_first) > MAX_NESTING {
            let problem =
                format!("has more than {MAX_NESTING} statements or brackets in one another: write it in parts");
            return Err(at(span, &problem));
        }
        match token {
            Token::TemplateData(_) => {}
            Token::VariableStart => {
                length = 0;
                let inside = usize::try_from(span.start_offset).ok().and_then(|at| text.get(at + 2..));
                let inside = inside.and_then(|rest| Some(rest.split_once("}}")?.0)).unwrap_or_default();
                if let Some(instead) = go::instead(inside, name) {
                    return Err(at(
                        span,
                        &format!("is Go's template syntax, and here Jinja's is known: write {instead}"),
                    ));
                }
            }
            Token::BlockStart => length = 0,
            Token::Ident(word) if is_first && !STATEMENTS.contains(&word) => {
                return Err(at(span, &format!("unknown statement {word:?}{}", suggestion(word, &STATEMENTS))));
            }
            Token::Ident("elif") if is_first => branches += 1,
            _ => length += 1,
        }
        is_first = starts_block;
        if length.max(branches) > MAX_DEPTH {
            let problem = "an expression has more words and signs than are read at once, or there are as many elif";
            return Err(at(span, &format!("{problem} ({MAX_DEPTH}): write it in parts")));
        }
    }
    Ok(())
}

/// How deep a template is at some place.
#[derive(Default)]
struct Nesting {
    statements: usize,
    brackets: usize,
    /// In the head of a `set`, which has a body only if it has no `=`.
    is_set: bool,
}

impl Nesting {
    /// The deeper of both behind this token.
    fn goes_on(&mut self, token: &Token<'_>, is_first: bool) -> usize {
        match token {
            Token::VariableStart | Token::BlockStart => (self.brackets, self.is_set) = (0, false),
            Token::ParenOpen | Token::BracketOpen | Token::BraceOpen => self.brackets += 1,
            Token::ParenClose | Token::BracketClose | Token::BraceClose => {
                self.brackets = self.brackets.saturating_sub(1);
            }
            Token::Assign if self.is_set => {
                self.statements = self.statements.saturating_sub(1);
                self.is_set = false;
            }
            Token::Ident(word) if is_first => {
                if word.starts_with("end") {
                    self.statements = self.statements.saturating_sub(1);
                } else if !matches!(*word, "elif" | "else" | "do") {
                    self.statements += 1;
                }
                self.is_set = *word == "set";
            }
            _ => {}
        }
        self.statements.max(self.brackets)
    }
}

#[derive(Default)]
struct Checker<'a> {
    /// What the template sets.
    kinds: BTreeMap<&'a str, Kind>,
    mentions: Vec<Mention>,
    /// Names that the template asks about before it takes them.
    probed: BTreeSet<&'a str>,
    /// Loops around the present place.
    loops: usize,
}

const MADE: &str = "a list or map that is made here goes into a loop, a variable, or | join or | tojson";
const SUM: &str = "+ of two values is not known to be text: write ~ to join text, or | int to add numbers";
const NAMESPACE: &str = "a namespace is used by its attributes alone: write ns.name";

impl<'a> Checker<'a> {
    fn template(&mut self, template: &Stmt<'a>) -> Result<(), ParseError> {
        if let Stmt::Template(template) = template { self.block(&template.children) } else { Ok(()) }
    }

    /// Names that neither the template nor its `from` has.
    fn check_names(&self, names: &[&str]) -> Result<(), ParseError> {
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

    // --- statements ---

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

    // --- expressions ---

    fn expr(&mut self, expr: &Expr<'a>) -> Result<Kind, ParseError> {
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

    fn call(&mut self, call: &Call<'a>, span: Span) -> Result<Kind, ParseError> {
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

fn is_dict(expr: &Expr<'_>) -> bool {
    matches!(expr, Expr::Call(call) if matches!(call.identify_call(), CallType::Function("dict")))
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

fn unknown_filter(name: &str) -> String {
    let names: Vec<_> = FILTERS.iter().map(|(name, _)| *name).collect();
    let instead = elsewhere(name).map(|ours| format!("; write {ours}"));
    format!("unknown filter {name:?}{}", instead.unwrap_or_else(|| suggestion(name, &names)))
}

fn unknown_test(name: &str) -> String {
    format!("unknown test {name:?}{}", suggestion(name, &TESTS))
}

fn unknown_function(name: &str) -> String {
    let filter = effect(name).map(|_| format!("; write value | {name}"));
    let instead = filter.or_else(|| elsewhere(name).map(|ours| format!("; write value {ours}")));
    format!("unknown function {name:?}{}", instead.unwrap_or_else(|| suggestion(name, &FUNCTIONS)))
}

fn unknown_method(name: &str) -> String {
    let names: Vec<_> = FILTERS.iter().map(|(name, _)| *name).collect();
    let instead = match (effect(name), elsewhere(name)) {
        (Some(_), _) => format!("; write | {name}"),
        (None, Some(ours)) => format!("; write {ours}"),
        (None, None) => suggestion(name, &names),
    };
    format!("unknown method {name:?}: values have none, but filters{instead}")
}

#[cfg(test)]
pub(crate) mod tests;
