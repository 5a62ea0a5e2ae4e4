use super::*;

#[test]
fn templates_see_documents_names_and_single_values() {
    let db = tree(
        &json!({"user": "u<&>", "port": 5432, "tls": true, "hosts": ["a", "b"], "deep": {"x": "y"}, "none": null}),
    );
    let plain = SecretTree::Text("p".into());
    for (from, template, want) in [
        (json!("db"), "{{ user }}:{{ port | int + 1 }}\n", "u<&>:5433\n"),
        (json!("db#/deep"), "{{ x }}", "y"),
        (json!("plain"), "{{ value | upper }}", "P"),
        (json!("db#user"), "{{ value }}", "u<&>"),
        (json!({"d": "db", "p": "plain"}), "{% if d.tls %}{{ p }}{{ d.deep.x }}{% endif %}", "py"),
        (json!({"d": "db"}), "{% for h in d.hosts %}{{ h }};{% endfor %}{{ d.hosts[1] }}", "a;b;b"),
        (json!({"d": "db"}), "{% for k, v in d.deep | items %}{{ k }}={{ v }}{% endfor %}", "x=y"),
        (
            json!({"d": "db"}),
            "{{ d.tls }} {{ d.none }} {{ d.deep }} {{ d.hosts ~ '' }}",
            r#"true  {"x":"y"} ["a","b"]"#,
        ),
        (json!({"d": "db"}), "{{ d.missing | default('-') }}{{ d.user == 'u<&>' }}", "-true"),
    ] {
        let fields = json!({"file": "f", "from": from, "template": template});
        let answers = [("db", db.clone()), ("plain", plain.clone())];
        assert_eq!(text(&fields, &answers), want, "{template}");
    }
}

#[test]
fn numbers_keep_their_digits_in_templates() {
    let numbers = ["00123", "-0", "1.10", "5432.0", "98765432109876543210", "1e400", "0.1000", "1E5", "-1", "0x10"];
    for number in numbers {
        let leaf = SecretTree::Literal(number.into());
        let document = SecretTree::Map(BTreeMap::from([("n".to_owned(), leaf)]));
        let made =
            |template: &str| text(&json!({"file": "f", "from": "x", "template": template}), &[("x", document.clone())]);
        assert_eq!(made("{{ n }}"), number);
        assert_eq!(made("{{ n ~ '' }}{{ n | replace('q', '') }}{% if n %}y{% endif %}"), format!("{number}{number}y"));
        assert_eq!(
            made("{% for k, v in {'k': n} | items %}{{ v }}{% endfor %}{{ [n, n] | join('-') }}"),
            format!("{number}{number}-{number}")
        );
    }
    // JSON says what is a number: others are quoted, so every reader takes the same.
    let tree = tree(&json!({"text": "5432", "t": true, "f": false, "none": null, "list": [1, "1"]}));
    let SecretTree::Map(mut entries) = tree else { panic!("a document") };
    entries.insert("n".to_owned(), SecretTree::Literal("1.10".into()));
    entries.insert("odd".to_owned(), SecretTree::Literal("00123".into()));
    for (template, want) in [
        (
            "{{ n | tojson }} {{ odd | tojson }} {{ text | tojson }} {{ t | tojson }} {{ none | tojson }}",
            r#"1.10 "00123" "5432" true null"#,
        ),
        ("{{ {'port': n, 'list': [text, list, none]} | tojson }}", r#"{"list":["5432",[1,"1"],null],"port":1.10}"#),
        ("{{ (n | int + 1) if n is integer else 'text' }}", "text"),
        ("{{ text | int + 1 }} {{ n | float }} {{ 1.5 | tojson }} {{ 3 | tojson }}", "5433 1.1 1.5 3"),
        (
            "{% if t %}{{ t }}{% endif %}{% if not f %}{{ f }}{% endif %}{% if none is none %}{{ none }}-{% endif %}",
            "truefalse-",
        ),
    ] {
        let answers = [("x", SecretTree::Map(entries.clone()))];
        assert_eq!(text(&json!({"file": "f", "from": "x", "template": template}), &answers), want, "{template}");
    }
}

#[test]
fn filters_of_ours_are_exact_and_refuse_what_is_no_text() {
    let hostile = "a'b\"c\\ $(x) `y`\n\u{202e}ü&<>/+=~%\t";
    let document = tree(
        &json!({"v": hostile, "nul": "a\0b", "doc": {"a": hostile}, "empty": "", "b64": " /u9\n+Aw== ", "no64": "canary!",
        "plain64": "aGk"}),
    );
    let made = |template: &str| {
        render_one(&json!({"file": "f", "from": "x", "template": template}), &[("x", document.clone())])
            .map(|files| String::from_utf8(files[0].1.clone()).unwrap())
    };
    assert_eq!(made("{{ v | shell_quote }}").unwrap(), format!("'{}'", hostile.replace('\'', r"'\''")));
    let echoed = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!("printf %s {}", made("{{ v | shell_quote }}").unwrap()))
        .output();
    assert_eq!(String::from_utf8(echoed.unwrap().stdout).unwrap(), hostile, "what a shell makes of it");
    assert_eq!(made("{{ empty | shell_quote }}").unwrap(), "''");
    let json = made("{{ v | tojson }}").unwrap();
    assert_eq!(serde_json::from_str::<String>(&json).unwrap(), hostile, "{json}");
    let json = made("{{ {'q\"': [v, doc]} | tojson }}").unwrap();
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&json).unwrap(),
        json!({"q\"": [hostile, {"a": hostile}]}),
        "{json}"
    );
    assert_eq!(
        made("{{ v | urlencode }}").unwrap(),
        "a%27b%22c%5C%20%24%28x%29%20%60y%60%0A%E2%80%AE%C3%BC%26%3C%3E%2F%2B%3D~%25%09"
    );
    assert_eq!(made("{{ v | b64encode | b64decode }}").unwrap(), hostile);
    assert_eq!(made("{{ plain64 | b64decode }}{{ 'a b' | b64encode }}").unwrap(), "hiYSBi");
    for (template, part) in [
        ("{{ nul | shell_quote }}", "shell_quote takes no NUL byte"),
        ("{{ doc | shell_quote }}", "shell_quote takes text"),
        ("{{ doc | urlencode }}", "urlencode takes text"),
        ("{{ doc | b64encode }}", "b64encode takes text"),
        ("{{ doc | b64decode }}", "b64decode takes text"),
        ("{{ b64 | b64decode }}", "bytes that are not text: deliver them in a file of their own, with decode: base64"),
        ("{{ no64 | b64decode }}", "b64decode takes base64, and this is not"),
    ] {
        let problem = made(template).unwrap_err();
        assert!(problem.contains(part) && !problem.contains("canary"), "{template}: {problem}");
    }
}

/// Each would take more memory than an agent has, or all time there is.
const GREEDY: &[&str] = &[
    "{% set ns = namespace(s='0123456789abcdef') %}{% for i in range(100) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "{% set ns = namespace(s='x') %}{% for i in range(100) %}{% set ns.s = ns.s | replace('x', 'xx') %}{% endfor %}",
    "{{ 'x' * 10 ** 9 }}",
    "{{ 'x' * 9999999 * 9 }}",
    "{{ range(99999) | join('x' * 9999) }}",
    "{{ big | replace('', big) }}",
    "{{ big | indent(10 ** 9) }}",
    "{{ '%999999999s' | format(big) }}",
    "{{ '%.999999999f' | format(1.5) }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{{ '' }}{% endfor %}{% endfor %}",
    "{% for i in range(9999) %}{% set x = big ~ i %}{% endfor %}",
    "{% for i in range(9999) %}{% set x = doc ~ i %}{% endfor %}",
    "{% for i in range(9999) %}{% set x %}{{ doc }}{% endset %}{% endfor %}",
    "{% for i in range(9999) %}{% set x = doc | tojson %}{% endfor %}",
    "{% for i in range(9999) %}{% set x = doc | string %}{% endfor %}",
    "{{ '%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s' | format(doc,doc,doc,doc,doc,doc,doc,doc,doc,doc,doc,doc,doc,doc,doc,doc,doc,doc,doc,doc) }}",
    "{{ [doc,doc,doc,doc,doc,doc,doc,doc,doc,doc,doc,doc,doc,doc,doc,doc,doc,doc,doc,doc,doc,doc,doc,doc,doc,doc] | tojson }}",
    "{{ [big,big,big,big,big,big,big,big,big,big,big,big,big,big,big,big,big,big,big,big,big,big,big,big,big,big] | join }}",
    "{{ range(99999) | map('string') | sort | join(big) }}",
    "{{ list | map('replace', '', big) | join }}",
    "{{ big | split('') | sort | unique | join('-') | split('') | join('--') | split('') | join('--') }}",
    "{% filter upper %}{% for i in range(9999) %}{{ big }}{% endfor %}{% endfilter %}",
];

/// Of its 36 MiB, the agent needs 7 itself, and the files, of which there may be four generations, 4.
const MOST_KIB: u64 = 24 * 1024;

#[test]
#[ignore = "run by a_template_stays_within_the_agents_memory"]
fn in_a_process_of_its_own() {
    let field = |name: &str| -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    // The test's own program is many times the agent's: its pages, which come as they are used, do not count.
    let peak = || field("VmHWM:") - field("RssFile:");
    let big = "x".repeat(500_000);
    let document = tree(&json!({"big": big, "doc": {"list": vec!["y".repeat(1000); 500]}, "list": vec!["z"; 1000]}));
    let before = peak();
    for template in GREEDY {
        let fields = json!({"file": "f", "from": "x", "template": template});
        let problem = render_one(&fields, &[("x", document.clone())]).expect_err(template);
        let is_told =
            ["more work or memory", "over the limit of 1048576 bytes"].iter().any(|part| problem.contains(part));
        assert!(is_told && !problem.contains("xxxx") && problem.len() < 300, "{template}: {problem}");
        let taken = peak() - before;
        assert!(taken < MOST_KIB, "{template}: {taken} KiB");
    }
    // Straight on: as many names for one value, which is kept once.
    let names: Vec<_> = (0..1200).map(|index| format!("{{% set a{index} = big %}}")).collect();
    let names = names.concat();
    assert_eq!(
        render_one(&json!({"file": "f", "from": "x", "template": names}), &[("x", document)]).unwrap()[0].1,
        b""
    );
    assert!(peak() - before < MOST_KIB, "{} KiB", peak() - before);
}

#[test]
fn a_template_stays_within_the_agents_memory() {
    crate::process::testing::passes_alone("deliver::render::tests::templates::in_a_process_of_its_own");
}

#[test]
fn what_is_admitted_never_panics() {
    let document = tree(&json!({"s": {"a": "x", "l": ["a", "b"], "n": 1, "t": true, "none": null}, "a": "text"}));
    let answers = [("x", document)];
    let mut made = 0;
    for seed in 0..30_000 {
        let template = crate::bundle::template::tests::soup(seed);
        let result = render_one(&json!({"file": "f", "from": "x", "template": template}), &answers);
        made += usize::from(result.is_ok());
        assert!(!result.is_err_and(|problem| problem.is_empty()), "{template:?}");
    }
    assert!(made > 100, "only {made} of them were templates");
    // Every name that is admitted is one.
    for filter in crate::bundle::template::filters() {
        for value in ["a", "s", "s.l", "s.n", "none", "3", "1.5", "[a, s]", "{'a': s}", "range(3)", "''"] {
            let template = format!("{{{{ {value} | {filter} }}}}");
            let result = render_one(&json!({"file": "f", "from": "x", "template": template}), &answers);
            assert!(!result.is_err_and(|problem| problem.contains("unknown filter")), "{template}");
        }
    }
}

#[test]
fn p5_p9_errors_of_templates_name_the_line_but_no_value() {
    let answers = canaries();
    for (fields, part) in [
        (
            json!({"file": "f", "from": {"d": "db"}, "template": "\n{{ d.usr }}"}),
            "template, line 2: d.usr is not defined; d has: \"bad key\", last64",
        ),
        (
            json!({"file": "f", "from": {"d": "db"}, "template": "{{ x }}"}),
            "line 1: x is not defined; at the top there are: d",
        ),
        (
            json!({"file": "f", "from": {"d": "db"}, "template": "{{ d.port + 1 }}"}),
            "line 1: an operator has text where it takes a",
        ),
        (
            json!({"file": "f", "from": {"d": "db"}, "template": "{{ d.user | int }}"}),
            "template, line 1: an operation cannot",
        ),
        (json!({"file": "f", "from": {"d": "db"}, "template": "{{ d.user() }}"}), "template: line 1: unknown method"),
        (
            json!({"file": "f", "from": {"d": "db"}, "template": "\n\n{{ d.user | b64decode }}"}),
            "line 3: b64decode takes base64",
        ),
        (
            json!({"file": "f", "from": {"d": "db"}, "template": "{% for x in [d] %}{{ x.no }}{% endfor %}"}),
            "x.no is not defined",
        ),
        (json!({"file": "f", "from": {"d": "db"}, "template": "{{ d['no one'].x }}"}), "d[\"no one\"] is not defined"),
        (
            json!({"file": "f", "from": "bin", "template": "{{ blob[0] }}"}),
            "template, line 1: a value that it takes is binary",
        ),
        (json!({"file": "f", "from": {"b": "bin"}, "template": "{{ b }}"}), "a value that it takes is binary"),
        (json!({"file": "f", "from": {"b": "bin"}, "template": "{{ b | tojson }}"}), "a value that it takes is binary"),
        (
            json!({"file": "f", "from": "db", "template":
                "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}"}),
            "template, line 1: takes more work or memory than a file of at most 1048576 bytes",
        ),
        (
            json!({"file": "f", "from": "db", "template":
                format!("{{% for i in range(9999) %}}{{{{ user }}}}{}{{% endfor %}}", "x".repeat(500))}),
            "the output grows over the limit of 1048576 bytes: raise hushpod.dev/size-limit",
        ),
        (
            json!({"file": "f", "from": {"s": "db"}, "template": "{% set k = 'x' %}\n{{ s[k] }}"}),
            "template, line 2: s[…] is not defined",
        ),
        (
            json!({"file": "f", "from": {"s": "db"}, "template": "{% for k in ['x'] %}{{ s[k].y }}{{ s.gone }}{% endfor %}"}),
            "s.gone is not defined",
        ),
    ] {
        let error = render_one(&fields, &answers).expect_err(&fields.to_string());
        assert!(error.contains(part), "{fields}: {error}");
        assert!(!error.contains("canary") && !error.contains("424242"), "{fields}: {error}");
    }
}

#[test]
fn lists_that_filters_make_are_written_as_documents_are() {
    let document =
        tree(&json!({"l": [1, "b\u{e9}'", true, null, {"k": 1}], "rows": [{"n": "a"}, {"m": "b"}], "t": "a\nb"}));
    let answers = [("x", document)];
    for (template, expected) in [
        ("{{ l }}", "[1,\"b\u{e9}'\",true,null,{\"k\":1}]"),
        ("{{ l | list }}", "[1,\"b\u{e9}'\",true,null,{\"k\":1}]"),
        ("{{ l | reverse | list }}", "[{\"k\":1},null,true,\"b\u{e9}'\",1]"),
        ("{{ t | lines }}", "[\"a\",\"b\"]"),
        ("{{ range(3) }}", "[0,1,2]"),
        ("{{ rows | map(attribute='n', default='') | list }}", "[\"a\",\"\"]"),
        ("{{ l | join(' ') }}", "1 b\u{e9}' true  {\"k\":1}"),
        ("{{ rows[0] | items | list | join }}", "[\"n\",\"a\"]"),
    ] {
        assert_eq!(text(&json!({"file": "f", "from": "x", "template": template}), &answers), expected, "{template}");
    }
    for template in [
        "{{ rows | map(attribute='n') | list }}",
        "{{ rows | map(attribute='n') | join }}",
        "{{ l | join(rows[0].x) }}",
    ] {
        let problem = render_one(&json!({"file": "f", "from": "x", "template": template}), &answers).unwrap_err();
        assert!(problem.contains("not defined"), "{template}: {problem}");
    }
}

#[test]
fn p3_a_binary_value_fails_only_the_templates_that_take_it() {
    let entries = [("user".to_owned(), SecretTree::Text("u".into())), ("keystore".to_owned(), binary())];
    let answers = [("x", SecretTree::Map(entries.into()))];
    for (from, template) in [
        (json!("x"), "{{ user }}"),
        (json!({"s": "x"}), "{{ s.user }}{% if s.user == 'x' %}{{ s.keystore }}{% endif %}"),
        (json!({"s": "x"}), "{% for key in s | list if key == 'user' %}{{ s[key] }}{% endfor %}"),
        (json!({"s": "x", "b": "x#keystore"}), "{{ s.user }}"),
    ] {
        assert_eq!(text(&json!({"file": "f", "from": from, "template": template}), &answers), "u", "{template}");
    }
}
