//! A template's words and signs, before it is parsed.

use minijinja::machinery::{Token, tokenize};
use minijinja::syntax::SyntaxConfig;

use super::go;
use super::names::STATEMENTS;
use super::problem::at;
use crate::parse_error::ParseError;
use crate::sentence::suggestion;

/// Most words and signs of one expression or statement of a template, and most of its `elif`s: the compiler goes as deep.
const MAX_DEPTH: usize = 250;
/// Most statements in statements, and most brackets in brackets: each costs the parser more of its stack than a word.
pub(super) const MAX_NESTING: usize = 32;

/// What would take the parser too deep, and what is not Jinja at all.
pub(super) fn check_tokens(text: &str, name: Option<&str>) -> Result<(), ParseError> {
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
