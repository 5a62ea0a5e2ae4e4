//! The names that templates may use, and what each filter makes of what.

/// What a filter takes and makes. See [`super::checker::Kind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Text or number from text or number.
    Scalar,
    /// The same, and one of ours: it refuses lists by itself.
    OwnScalar,
    /// Text or number from anything, made lists included.
    Reduce,
    /// One of a list's elements.
    Element,
    /// A list of the same elements, or of what another filter makes of them.
    List,
    /// A list of pairs.
    Pairs,
    /// A list out of text.
    Split,
    /// What it is given, or its argument.
    Default,
}

/// Filters, in the order of their names. Those of minijinja that make lists of lists are left out: what a template holds
/// must not be more than its text and its secrets.
pub(super) const FILTERS: [(&str, Effect); 46] = [
    ("abs", Effect::Scalar),
    ("attr", Effect::Element),
    ("b64decode", Effect::OwnScalar),
    ("b64encode", Effect::OwnScalar),
    ("bool", Effect::Scalar),
    ("capitalize", Effect::Scalar),
    ("count", Effect::Reduce),
    ("d", Effect::Default),
    ("default", Effect::Default),
    ("dictsort", Effect::Pairs),
    ("e", Effect::Scalar),
    ("escape", Effect::Scalar),
    ("first", Effect::Element),
    ("float", Effect::Scalar),
    ("format", Effect::Scalar),
    ("indent", Effect::Scalar),
    ("int", Effect::Scalar),
    ("items", Effect::Pairs),
    ("join", Effect::Reduce),
    ("last", Effect::Element),
    ("length", Effect::Reduce),
    ("lines", Effect::Split),
    ("list", Effect::List),
    ("lower", Effect::Scalar),
    ("map", Effect::List),
    ("max", Effect::Element),
    ("min", Effect::Element),
    ("reject", Effect::List),
    ("rejectattr", Effect::List),
    ("replace", Effect::Scalar),
    ("reverse", Effect::List),
    ("round", Effect::Scalar),
    ("safe", Effect::Scalar),
    ("select", Effect::List),
    ("selectattr", Effect::List),
    ("shell_quote", Effect::OwnScalar),
    ("sort", Effect::List),
    ("split", Effect::Split),
    ("string", Effect::Scalar),
    ("sum", Effect::Reduce),
    ("title", Effect::Scalar),
    ("tojson", Effect::Reduce),
    ("trim", Effect::Scalar),
    ("unique", Effect::List),
    ("upper", Effect::Scalar),
    ("urlencode", Effect::OwnScalar),
];

/// Tests, in the order of their names.
pub(super) const TESTS: [&str; 36] = [
    "boolean",
    "defined",
    "divisibleby",
    "endingwith",
    "eq",
    "equalto",
    "escaped",
    "even",
    "false",
    "filter",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "int",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "safe",
    "sameas",
    "sequence",
    "startingwith",
    "string",
    "test",
    "true",
    "undefined",
    "upper",
];

/// Functions.
pub(super) const FUNCTIONS: [&str; 3] = ["dict", "namespace", "range"];

/// Words that are values of their own, whatever is called so.
pub(super) const CONSTANTS: [&str; 6] = ["False", "None", "True", "false", "none", "true"];

/// What a loop knows of itself, besides `cycle` and `changed`.
pub(super) const LOOP: [&str; 11] =
    ["depth", "depth0", "first", "index", "index0", "last", "length", "nextitem", "previtem", "revindex", "revindex0"];

/// Statements, with what ends them.
pub(super) const STATEMENTS: [&str; 15] = [
    "autoescape",
    "do",
    "elif",
    "else",
    "endautoescape",
    "endfilter",
    "endfor",
    "endif",
    "endset",
    "endwith",
    "filter",
    "for",
    "if",
    "set",
    "with",
];

/// What other template languages call a filter of ours, and Python a method.
const ELSEWHERE: [(&str, &str); 31] = [
    ("b64dec", "| b64decode"),
    ("b64enc", "| b64encode"),
    ("base64Decode", "| b64decode"),
    ("base64Encode", "| b64encode"),
    ("base64decode", "| b64decode"),
    ("base64encode", "| b64encode"),
    ("endswith", "is endingwith(…)"),
    ("fromJson", "a #/pointer in from: text that is JSON is a document there"),
    ("from_json", "a #/pointer in from: text that is JSON is a document there"),
    ("fromjson", "a #/pointer in from: text that is JSON is a document there"),
    ("get", "[\"key\"] | default(…)"),
    ("keys", "| list"),
    ("lstrip", "| trim"),
    ("quote", "| shell_quote, or | tojson"),
    ("rstrip", "| trim"),
    ("shellquote", "| shell_quote"),
    ("splitlines", "| lines"),
    ("squote", "| shell_quote"),
    ("startswith", "is startingwith(…)"),
    ("strip", "| trim"),
    ("toJSON", "| tojson"),
    ("toJson", "| tojson"),
    ("toLower", "| lower"),
    ("toUpper", "| upper"),
    ("to_json", "| tojson"),
    ("trimSpace", "| trim"),
    ("url_encode", "| urlencode"),
    ("urlquery", "| urlencode"),
    ("urlescape", "| urlencode"),
    ("ljust", "| format, such as \"%-8s\" | format(…)"),
    ("rjust", "| format, such as \"%8s\" | format(…)"),
];

pub(super) fn effect(filter: &str) -> Option<Effect> {
    FILTERS.iter().find(|(name, _)| *name == filter).map(|(_, effect)| *effect)
}

/// What to write instead of a name that means something elsewhere.
pub(super) fn elsewhere(name: &str) -> Option<&'static str> {
    ELSEWHERE.iter().find(|(other, _)| *other == name).map(|(_, ours)| *ours)
}
