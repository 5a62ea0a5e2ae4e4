use super::tokens::MAX_NESTING;
use super::*;

#[test]
fn p9_names_that_the_text_decides_are_known_or_named() {
    for (template, parts) in [
        ("{{ s.username | b64enc }}", &["line 1", "unknown filter \"b64enc\"", "write | b64encode"][..]),
        (
            "pw={{ s.pw }}\n{% if s.new %}{{ s.new | nosuch }}{% endif %}",
            &["line 2", "unknown filter \"nosuch\"", "expected one of"],
        ),
        ("{{ s.a | uper }}", &["did you mean \"upper\"?"]),
        ("{{ s.a | foo.bar }}", &["unknown filter \"foo.bar\""]),
        ("{% filter nosuch %}x{% endfilter %}", &["unknown filter \"nosuch\""]),
        ("{% set x | nosuch %}x{% endset %}", &["unknown filter \"nosuch\""]),
        ("{{ s.list | map('nosuch') | join }}", &["unknown filter \"nosuch\""]),
        ("{{ s.list | map(s.name) | join }}", &["map takes a name in quotes"]),
        ("{{ s.list | select('nosuch') | join }}", &["unknown test \"nosuch\""]),
        ("{{ s.list | rejectattr('a', 'evn') | join }}", &["unknown test \"evn\"", "did you mean \"even\"?"]),
        ("{% if s is defind %}{% endif %}", &["unknown test \"defind\"", "did you mean \"defined\"?"]),
        ("{{ 1 if s.a is nosuch else 2 }}", &["unknown test \"nosuch\""]),
        ("{{ env('HOME') }}", &["unknown function \"env\"", "expected one of dict, namespace, range"]),
        ("{{ upper(s.a) }}", &["unknown function \"upper\"", "write value | upper"]),
        ("{{ s() }}", &["unknown function \"s\""]),
        ("{{ rang(3) }}", &["did you mean \"range\"?"]),
        ("{{ s.a.upper() }}", &["unknown method \"upper\"", "write | upper"]),
        ("{{ 'x'.strip() }}", &["unknown method \"strip\"", "write | trim"]),
        ("{{ s.a.startswith('x') }}", &["unknown method \"startswith\"", "is startingwith"]),
        ("{{ s['a']() }}", &["not a function"]),
        ("{% for a in s.l %}{{ loop.nosuch() }}{% endfor %}", &["unknown method \"nosuch\""]),
        ("{% for a in s.l %}{{ loop.cycle() }}{% endfor %}", &["loop.cycle takes one value"]),
        (
            "{% for a in s.l %}{% if s.b %}{{ loop.foo }}{% endif %}{% endfor %}",
            &["unknown name \"loop.foo\"", "expected one of"],
        ),
        ("{% for a in s.l %}{{ loop.indx }}{% endfor %}", &["unknown name \"loop.indx\"", "did you mean \"index\"?"]),
        ("{% for a in s.l %}{{ a }}{% else %}{{ loop.index }}{% endfor %}", &["\"loop\" is not defined"]),
        ("{{ loop.index }}", &["\"loop\" is not defined"]),
        ("{% for a in s.l recursive %}{{ loop(a) }}{% endfor %}", &["cannot be recursive"]),
        ("{% include 'x' %}", &["unknown statement \"include\"", "expected one of"]),
        ("{% extends 'x' %}", &["unknown statement \"extends\""]),
        ("{% import 'x' as y %}", &["unknown statement \"import\""]),
        ("{% macro f() %}{{ f() }}{% endmacro %}", &["unknown statement \"macro\""]),
        ("{% fro a in s %}{% endfor %}", &["unknown statement \"fro\"", "did you mean \"for\"?"]),
        ("\n{{ dbb.user }}", &["line 2", "\"dbb\" is not defined", "expected s"]),
        ("{% if s.a %}{{ ss.b }}{% endif %}", &["\"ss\" is not defined", "did you mean \"s\"?"]),
        ("{{ s.x", &["line 1"]),
        ("{{ s.a ", &["line 1"]),
    ] {
        let problem = check(template, Some(&["s"])).expect_err(template).to_string();
        for part in parts {
            assert!(problem.contains(part), "{template}: {problem:?} lacks {part:?}");
        }
        assert!(!problem.contains('\n') && problem.len() < 1000, "one sentence: {problem}");
    }
}

#[test]
fn p9_a_secret_cannot_be_called_as_a_constant_is() {
    for name in ["true", "None", "false"] {
        let problem = check(&format!("{{{{ {name} }}}}"), Some(&["s", name])).unwrap_err().to_string();
        assert!(problem.starts_with(&format!("{name:?} is a constant of templates")), "{problem}");
    }
    assert_eq!(check("{{ nothing }}{{ none }}", Some(&["nothing"])), Ok(()));
}

#[test]
fn what_templates_are_written_for_is_accepted() {
    for template in [
        "auth_basic_user {{ s.username }};",
        "{{ s.a | default('x') }}{{ other | default('y') }}{% if third is defined %}{{ third }}{% endif %}",
        "{% for k, v in s | items %}{{ k }}={{ v | shell_quote }}\n{% endfor %}",
        "{% for h in s.hosts %}{{ loop.index }}{{ loop.previtem | default('') }}{{ loop.cycle('a', 'b') }}{% if loop.changed(h) %},{% endif %}{% endfor %}",
        "{% for h in s.hosts if h is startingwith('x') %}{{ h }}{% else %}none{% endfor %}",
        "{% for i in range(3) %}{{ i }}{% endfor %}",
        "{% set dsn = 'postgres://' + s.user ~ ':' ~ (s.password | urlencode) %}{{ dsn }}",
        "{% set hosts = [s.a, s.b] %}{{ hosts | join(',') }}{{ hosts | map('upper') | list | tojson }}",
        "{{ {'db': {'user': s.user, 'ports': [s.port, 5432]}} | tojson }}{{ dict(a=s.a) | tojson }}",
        "{% for host, port in [[s.a, 1], [s.b, 2]] %}{{ host }}:{{ port }}{% endfor %}",
        "{% set ns = namespace(n=0, text='') %}{% for x in s.l %}{% set ns.n = ns.n + 1 %}{% set ns.text = ns.text ~ x %}{% set ns.last = x %}{% endfor %}{{ ns.n }}{{ ns.text }}",
        "{{ s.port | int + 1 }} {{ '-' * 20 }} {{ s.n | int * 2 }} {{ s.user + s.password }}",
        "{{ (s.user + s.password) | b64encode }}{{ s | tojson | b64encode }}",
        "{% with a = s.a %}{{ a }}{% endwith %}{% filter upper %}{{ s.a }}{% endfilter %}",
        "{% set x %}{{ s.a }}{% endset %}{{ x | trim }}",
        "{{ s.a in ['x', s.b] }}{{ s.a is in(['x']) }}{{ {'a': s.a}[s.b] }}{{ s.list[1:] }}",
        "{{ s.a if s.b else 'x' }}{{ not s.a }}{{ -1 }}{{ 1 < s.n | int < 3 }}",
        "{{ '%s:%s' | format(s.a, s.b) }}{{ s.text | indent(2) }}{{ s.l | first }}{{ s.l | sum }}",
        "{% raw %}{{ .Data }}{% endraw %}{# {{ .x }} #}{{ '{{ .x }}' }}",
        "{{ index }}{{ range }}{{ end }}{{ with }}{{ s .a }}{{ not \"x\" }}{{ 'a' \"b\" }}",
        "{% autoescape false %}{{ s.a | safe }}{% endautoescape %}",
    ] {
        let names = ["s", "index", "end", "with"];
        assert_eq!(check(template, Some(&names)), Ok(()), "{template}");
        assert_eq!(check(template, None), Ok(()), "{template}");
    }
}

#[test]
fn what_a_template_builds_is_no_more_than_its_text_and_its_secrets() {
    for (template, part) in [
        ("{% set x = s.l + s.l %}", "write ~ to join text"),
        ("{% set x = [s] %}{% set x = [x, x] %}", "a list goes into another one only where both are written"),
        ("{% set x = [s] %}{{ dict(a=x) | tojson }}", "a list goes into another one"),
        ("{% set x = [s] %}{% for y in [[x, x]] %}{% endfor %}", "a list goes into another one"),
        ("{{ [s, s] }}", "goes into a loop"),
        ("{{ [s, s] ~ 'x' }}", "goes into a loop"),
        ("{{ [s, s] | string }}", "goes into a loop"),
        ("{{ [s, s] | upper }}", "goes into a loop"),
        ("{{ '%s' | format([s, s]) }}", "goes into a loop"),
        ("{{ [s] + [s] }}", "goes into a loop"),
        ("{{ s.l * 1000 }}", "* repeats text and lists"),
        ("{{ [s.a] * 1000 }}", "* repeats text and lists"),
        ("{{ s.l | chain(s.l) }}", "unknown filter \"chain\""),
        ("{{ s.l | zip(s.l) }}", "unknown filter \"zip\""),
        ("{{ s.l | batch(2) }}", "unknown filter \"batch\""),
        ("{{ range(9) | map(attribute='a', default=s) | join }}", "map takes a constant"),
        ("{{ range(9) | map('default', s.a) | join }}", "map cannot fill in"),
        ("{% set ns = namespace() %}{% set ns.a = ns %}", "used by its attributes alone"),
        ("{% set ns = namespace() %}{{ ns }}", "used by its attributes alone"),
        ("{% set ns = namespace() %}{% set m = ns %}", "used by its attributes alone"),
        ("{% set ns = namespace(a=[s]) %}", "a namespace keeps text"),
        ("{% set ns = namespace() %}{% set ns.a = [ns.a] %}", "a namespace keeps text"),
        ("{% set ns = namespace() %}{% set ns.a = ns.a + ns.a %}", "a namespace keeps text"),
        ("{% set ns = namespace() %}{% set ns.a = ns.a[1:] %}", "a namespace keeps text"),
        ("{% set ns = namespace() %}{% set ns = [s] %}", "is a namespace in one place"),
        ("{% with ns = namespace() %}{% endwith %}", "stands behind the = of a set"),
        ("{% set s.a = 1 %}", "only a namespace takes attributes"),
        ("{{ range(*s.l) }}", "* and ** before arguments"),
        ("{{ debug() }}", "unknown function \"debug\""),
        ("{{ s | pprint }}", "unknown filter \"pprint\""),
    ] {
        let problem = check(template, Some(&["s"])).expect_err(template).to_string();
        assert!(problem.contains(part), "{template}: {problem}");
    }
}

#[test]
fn p9_go_templates_are_answered_with_jinja() {
    for (template, names, instead) in [
        ("{{ .Data.data.password }}", Some("db"), "write {{ db.password }}"),
        ("{{ .Data.password }}", Some("db"), "write {{ db.password }}"),
        ("{{.Data.data.password}}", None, "write {{ password }}"),
        ("{{ .password | toJSON }}", Some("db"), "write {{ db.password | tojson }}"),
        ("{{ .db.password | b64enc }}", Some("db"), "write {{ db.password | b64encode }}"),
        ("{{ .tlscrt | base64Decode }}", None, "write {{ tlscrt | b64decode }}"),
        ("{{ . }}", Some("db"), "write {{ db }}"),
        (
            "{{- with secret \"secret/data/db\" -}}\n{{ .Data.data.x }}\n{{- end }}",
            Some("db"),
            "write {{ db.key }} with from",
        ),
        ("{{ with .Data.data }}", Some("db"), "write {% with it = db %}"),
        ("{{ range $k, $v := .Data.data }}", Some("db"), "write {% for key, value in db | items %} … {% endfor %}"),
        ("{{ range listSecrets \"a\" }}", Some("db"), "{% for key, value in db | items %}"),
        ("{{ range . }}", None, "{% for key, value in value | items %}"),
        ("{{ if .Data.data.x }}a{{ else }}b{{ end }}", Some("db"), "write {% if db.x %} … {% endif %}"),
        ("{{ printf \"%s:%s\" .user .Data.data.pw }}", Some("db"), "write {{ \"%s:%s\" | format(db.user, db.pw) }}"),
        ("{{ index .Data.data \"a-b\" }}", Some("db"), "write {{ db[\"a-b\"] }}"),
        ("{{ $x := .Data.data.x }}", Some("db"), "write {% set x = db.x %}"),
        ("{{ $x }}", Some("db"), "write {{ x }}"),
        ("{{/* why */}}", None, "write {# why #}"),
        ("{{- /* why */ -}}", None, "write {# why #}"),
        ("{{ env \"HOME\" }}", Some("db"), "no other source"),
        ("{{ define \"x\" }}", None, "one template that holds it all"),
        ("{{ toJSON .Data.data }}", Some("db"), "write {{ db | tojson }}"),
        ("{{ toJson .Data.data }}", Some("db"), "write {{ db | tojson }}"),
        ("{{ b64enc .password }}", Some("db"), "write {{ db.password | b64encode }}"),
        ("{{ upper .password }}", Some("db"), "write {{ db.password | upper }}"),
        ("{{ trimSpace (.password) }}", Some("db"), "write {{ db.password | trim }}"),
        ("{{ default \"x\" .password }}", Some("db"), "write {{ db.password | default(\"x\") }}"),
        ("{{ required \"is missing\" .password }}", Some("db"), "write {{ db.password }}"),
        ("{{ (secret \"secret/data/db\").Data.data.x }}", Some("db"), "write {{ db.key }} with from"),
        ("{{ with pkiCert \"pki/issue/web\" \"common_name=x\" }}", Some("db"), "write {{ db.key }} with from"),
        ("{{ pkiCert \"pki/issue/web\" }}", Some("db"), "write {{ db.key }} with from"),
        ("{{ include \"x\" . }}", Some("db"), "one template that holds it all"),
        ("{{ keyOrDefault \"a\" \"b\" }}", Some("db"), "no other source"),
        ("{{ fromJson .x }}", Some("db"), "write a #/pointer in from"),
        ("{{ nobodyKnows $x }}", Some("db"), "no other source"),
    ] {
        let names: Option<Vec<&str>> = names.map(|name| vec![name]);
        let problem = check(&format!("a\n{template}"), names.as_deref()).expect_err(template).to_string();
        assert!(problem.starts_with("line 2: is Go's template syntax"), "{template}: {problem}");
        assert!(problem.contains(instead), "{template}: {problem:?} lacks {instead:?}");
    }
}

#[test]
fn mentions_are_what_a_line_asks_for() {
    let found = mentions("{{ a.b }}\n{% for x in a['c d'][0] %}{{ x.y }}{% endfor %}");
    let shown: Vec<_> = found.iter().map(|m| (m.line, m.path.join("/"), m.is_local)).collect();
    for expected in [(1, "a/b"), (2, "a/c d/0"), (2, "x/y")] {
        let is_local = expected.1.starts_with('x');
        assert!(shown.contains(&(expected.0, expected.1.to_owned(), is_local)), "{expected:?} is not in {shown:?}");
    }
}

/// Pieces that templates are made of, the odd ones among them.
const PIECES: &[&str] = &[
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "#}",
    "{{-",
    "-}}",
    "{%-",
    "-%}",
    " ",
    "\n",
    "a",
    "s",
    "s.l",
    ".",
    "|",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "'",
    "\"",
    "\\",
    "x'y",
    "'x'",
    "0",
    "1e",
    "1.5",
    "0x",
    "9999999999999999999999999999999999999999",
    "+",
    "-",
    "*",
    "**",
    "//",
    "~",
    "==",
    "!=",
    "<",
    "=",
    ",",
    ":",
    "not",
    "and",
    "or",
    "in",
    "is",
    "if",
    "else",
    "elif",
    "endif",
    "for",
    "endfor",
    "recursive",
    "set",
    "endset",
    "with",
    "endwith",
    "filter",
    "endfilter",
    "raw",
    "endraw",
    "autoescape",
    "do",
    "loop",
    "loop.cycle()",
    "namespace()",
    "dict",
    "range",
    "upper",
    "tojson",
    "map('upper')",
    "default",
    "é",
    "\u{202e}",
    "\0",
    "{{ s }}",
    "{% if s %}",
    "{% for a in s %}",
    "$",
    ".Data",
];

/// A generator that is the same on every machine (Numerical Recipes' constants).
pub(crate) fn soup(seed: u64) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = |most: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % most
    };
    let length = 1 + next(24);
    (0..length).map(|_| PIECES[next(PIECES.len())]).collect()
}

#[test]
fn no_text_panics() {
    // What panicked in the lexer: a line of more columns than it counts.
    for text in ["{#".repeat(33_000), " {{ s ".repeat(20_000), "{{ '".repeat(30_000), "x".repeat(70_000) + "{{ $ }}"] {
        let problem = check(&text, None).unwrap_err().to_string();
        assert!(problem.contains("at most 32768 bytes"), "{problem}");
    }
    // As much as is read.
    for piece in PIECES {
        drop(check(&piece.repeat(MAX_TEMPLATE_BYTES / piece.len()), None));
        drop(check(&format!("{{{{ {piece} }}}}"), None));
        drop(check(&format!("{{% {piece} %}}"), None));
        for middle in [" ", "\n", "s", "("] {
            let text = format!("{{{{ s {}", format!("{piece}{middle}").repeat(120));
            drop(check(&text, None));
            drop(check(&format!("{text} }}}}"), None));
        }
    }
    let nested = "{% for a in s %}{% if a %}{% with b = a %}{% set x %}{% filter upper %}".repeat(6)
        + "x"
        + &"{% endfilter %}{% endset %}{% endwith %}{% endif %}{% endfor %}".repeat(6);
    assert_eq!(check(&nested, None), Ok(()));
    for (open, close) in
        [("(", ")"), ("[", "]"), ("s[", "]"), ("s.l | map('upper') | first | default(", ")"), ("range(", ")")]
    {
        let text = |depth: usize| format!("{{{{ {}1{} }}}}", open.repeat(depth), close.repeat(depth));
        if open == "(" {
            assert_eq!(check(&text(MAX_NESTING), None), Ok(()), "{open}");
        }
        let problem = check(&text(MAX_NESTING + 1), None).unwrap_err().to_string();
        assert!(problem.contains("in one another") || problem.contains("words and signs"), "{open}: {problem}");
    }
    for seed in 0..20_000 {
        let text = soup(seed);
        if let Err(problem) = check(&text, Some(&["s"])) {
            assert!(!problem.to_string().is_empty(), "{text:?}");
        }
    }
}

#[test]
fn p9_an_expression_has_so_many_words_and_signs_and_not_one_more() {
    // A word and a sign each, and the brackets' end.
    let sum = |signs: usize| format!("{{{{ s{} }}}}", " + s".repeat(signs));
    let choice = |branches: usize| format!("{{% if s %}}{}{{% endif %}}", "{% elif s %}".repeat(branches));
    for (fits, too_long) in [(sum(124), sum(125)), (choice(250), choice(251))] {
        assert_eq!(check(&fits, Some(&["s"])), Ok(()));
        let problem = check(&too_long, Some(&["s"])).unwrap_err().to_string();
        assert!(problem.contains("more words and signs than are read at once") && problem.contains("250"), "{problem}");
    }
}
