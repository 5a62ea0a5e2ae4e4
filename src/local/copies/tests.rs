use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;

use age::secrecy::ExposeSecret as _;
use age::x25519::Identity;
use rustix::fs::{CWD, Mode, mkfifoat};

use super::*;
use crate::bundle::{Bundle, Item, Target, parse_reference};
use crate::config::{self, Config};
use crate::options::Options;

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

fn keys(identity: &Identity) -> OwnKeys {
    OwnKeys::of(&[SecretValue::from(identity.to_string().expose_secret())]).unwrap()
}

/// A plan for these references of a Vault at this address.
fn plan_at(address: &str, references: &[&str]) -> Plan {
    plan_of(&format!("{{type: vault, address: 'https://{address}', role: web}}"), references)
}

/// A plan for these references of a provider with these settings.
fn plan_of(settings: &str, references: &[&str]) -> Plan {
    let config = format!("image: i\ndefaultProvider: store\nproviders:\n  store: {settings}\n");
    let config = Config::from_yaml(&config).unwrap();
    let mut bundle = Bundle::default();
    for (index, reference) in references.iter().enumerate() {
        let target = format!("file{index}").parse().map(Target::File).unwrap();
        let (reference, is_optional) = match reference.strip_suffix('?') {
            Some(reference) => (reference, true),
            None => (*reference, false),
        };
        let mut item = Item::short("test", target, parse_reference(reference).unwrap());
        item.optional = is_optional;
        bundle.push(item).unwrap();
    }
    let who = config::Identity { namespace: "default".to_owned(), service_account: "default".to_owned() };
    Plan::build(who, &bundle, &Options::default(), &config).unwrap()
}

fn plan(references: &[&str]) -> Plan {
    plan_at("vault.example", references)
}

/// What a store answers to all that a plan asks for, except for these.
fn answered(plan: &Plan, value: &str, absent: &[&str]) -> Generation {
    let is_there = |request: &&Request| !absent.contains(&request.path.as_str());
    let tree = || Arc::new(SecretTree::Map(BTreeMap::from([("x".to_owned(), SecretTree::Text(value.into()))])));
    Generation {
        id: GenerationId("one".to_owned()),
        answers: plan.requests().into_iter().filter(is_there).map(|request| (request.clone(), tree())).collect(),
        versions: BTreeMap::new(),
        accesses: BTreeMap::new(),
    }
}

struct Cache {
    directory: tempfile::TempDir,
    identity: Identity,
}

impl Cache {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), identity: Identity::generate() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join(DIRECTORY).join("copy.age")
    }

    fn of(&self, most: Option<u64>) -> Copies {
        Copies { path: self.path(), keys: keys(&self.identity), most: most.map(Duration::from_millis) }
    }

    fn set(&self, plan: &Plan, generation: &Generation, taken: u64) -> KeptSet {
        KeptSet::new(plan, generation, &BTreeSet::new(), self.of(None).marks(plan), taken)
    }

    /// Keeps what a store answered at a moment.
    fn keep(&self, plan: &Plan, value: &str, absent: &[&str], taken: u64) {
        self.of(None).keep_set(self.set(plan, &answered(plan, value, absent), taken)).unwrap();
    }

    /// The value that a copy has for a plan: `None` if it is not to be used.
    fn value(&self, most: Option<u64>, plan: &Plan, now: u64) -> Option<String> {
        let generation = self.of(most).take_at(plan, now).ok()??;
        let trees: BTreeSet<_> = generation.answers.values().map(|tree| shown(tree)).collect();
        Some(trees.into_iter().collect::<Vec<_>>().join("+"))
    }
}

fn shown(tree: &SecretTree) -> String {
    tree.key("x").unwrap().as_value().unwrap().expose_str().unwrap().to_owned()
}

#[test]
fn p5_a_copy_is_taken_as_long_as_it_is_young_and_offline_however_old() {
    let cache = Cache::new();
    let plan = plan(&["secret/data/a#x"]);
    cache.keep(&plan, "canary", &[], 2 * DAY);
    for (most, now, is_taken) in [
        (Some(DAY), 2 * DAY, true),
        (Some(DAY), 3 * DAY - 1, true),
        (Some(DAY), 3 * DAY, false),
        (Some(DAY), 2 * DAY - 1, false),
        (Some(DAY), 0, false),
        (None, 2 * DAY, true),
        (None, 900 * DAY, true),
        (None, 0, true),
    ] {
        let found = cache.value(most, &plan, now);
        assert_eq!(found.is_some(), is_taken, "{most:?} {now}");
    }
    let set = cache.set(&plan, &answered(&plan, "canary", &[]), 2 * DAY);
    assert_eq!(set.describe(5 * DAY), "3d ago");
    assert!(set.describe(DAY).contains("clock has yet to reach"));
}

#[test]
fn p2_a_copy_is_of_one_moment_and_of_the_same_stores() {
    let cache = Cache::new();
    let (a, b, both) =
        (plan(&["secret/data/a#x"]), plan(&["secret/data/b#x"]), plan(&["secret/data/a", "secret/data/b"]));
    cache.keep(&a, "first", &[], HOUR);
    cache.keep(&b, "second", &[], 2 * HOUR);
    assert_eq!(cache.value(None, &a, DAY).as_deref(), Some("first"));
    assert_eq!(cache.value(None, &both, DAY), None, "two moments are not mixed");
    cache.keep(&both, "third", &[], 3 * HOUR);
    for plan in [&a, &b, &both] {
        assert_eq!(cache.value(None, plan, DAY).as_deref(), Some("third"), "a part of a whole is one");
    }
    let document = cache.of(None).read().unwrap().unwrap();
    assert_eq!(document.sets.len(), 1, "what is in the new one is not kept twice");
    assert_eq!(cache.value(None, &plan_at("other.example", &["secret/data/a#x"]), DAY), None, "another store");
}

#[test]
fn p6_a_copy_of_one_login_is_not_anothers() {
    const VAULT: &str = "type: vault, address: 'https://vault.example'";
    const INFISICAL: &str = "type: infisical, address: 'https://infisical.example', project: \
                             5f1d3a70-0b52-4c5e-9b0a-3f4e1d2c7a11, environment: prod";
    const ADC: &str = r#"{"type":"service_account","client_email":"canary@NAME","private_key":"canary"}"#;
    const KEYS: &str = "[default]\naws_access_key_id = AKIANAME\naws_secret_access_key = canary\n";
    // Settings, the login that their file has, and a reference.
    for (settings, login, reference) in [
        (format!("{{{VAULT}, auth: {{method: token, tokenFile: FILE}}}}"), "canary-NAME", "secret/data/a#x"),
        (
            format!("{{{VAULT}, auth: {{method: approle, roleIdFile: FILE, secretIdFile: /none}}}}"),
            "canary-NAME",
            "secret/data/a#x",
        ),
        (format!("{{{VAULT}, role: web, auth: {{method: jwt, tokenFile: FILE}}}}"), "canary-NAME", "secret/data/a#x"),
        (format!("{{{INFISICAL}, auth: {{method: token, tokenFile: FILE}}}}"), "canary-NAME", "/a#x"),
        (
            format!("{{{INFISICAL}, auth: {{method: universal, clientIdFile: FILE, clientSecretFile: /none}}}}"),
            "canary-NAME",
            "/a#x",
        ),
        ("{type: aws, region: eu-west-1, auth: {method: profile, credentialsFile: FILE}}".to_owned(), KEYS, "a#x"),
        ("{type: ssm, region: eu-west-1, auth: {method: profile, credentialsFile: FILE}}".to_owned(), KEYS, "a"),
        (
            "{type: gcp, auth: {method: application-default-credentials, file: FILE}}".to_owned(),
            ADC,
            "projects/p/secrets/a",
        ),
    ] {
        let cache = Cache::new();
        let file = cache.directory.path().join("login");
        let plan = plan_of(&settings.replace("FILE", file.to_str().unwrap()), &[reference]);
        let log_in = |name: &str| fs::write(&file, login.replace("NAME", name)).unwrap();
        log_in("ONE");
        cache.keep(&plan, "of one", &[], HOUR);
        log_in("TWO");
        assert_eq!(cache.value(Some(DAY), &plan, 2 * HOUR), None, "{settings}");
        let told = cache.of(None).take(&plan).unwrap_err().problem;
        assert!(told.contains("another login") && !told.contains("canary"), "{settings}: {told}");
        cache.keep(&plan, "of two", &[], HOUR);
        assert_eq!(cache.value(None, &plan, DAY).as_deref(), Some("of two"), "{settings}");
        log_in("ONE");
        assert_eq!(cache.value(None, &plan, DAY).as_deref(), Some("of one"), "{settings}");
        fs::remove_file(&file).unwrap();
        assert_eq!(cache.value(None, &plan, DAY), None, "{settings}: nobody is logged in");
        let document = serde_json::to_string(&cache.of(None).read().unwrap().unwrap()).unwrap();
        assert!(
            !document.contains("canary") && !document.contains("AKIA"),
            "only marks of logins are kept: {document}"
        );
    }
}

#[test]
fn what_was_not_there_is_known_and_is_not_enough_for_who_needs_it() {
    let cache = Cache::new();
    cache.keep(&plan(&["secret/data/a#x", "secret/data/b#x?"]), "canary", &["secret/data/b"], HOUR);
    assert!(cache.value(None, &plan(&["secret/data/a#x", "secret/data/b#x?"]), DAY).is_some());
    assert!(cache.value(None, &plan(&["secret/data/a#x", "secret/data/b#x"]), DAY).is_none());
}

#[test]
fn p5_leased_answers_are_never_kept() {
    let cache = Cache::new();
    let plan_of_both = plan(&["secret/data/a#x", "secret/data/b#x"]);
    let leased = plan(&["secret/data/b#x"]).requests().into_iter().cloned().collect();
    cache.of(Some(DAY)).keep(&plan_of_both, &answered(&plan_of_both, "canary", &[]), &leased);
    let kept: Vec<_> = cache.of(None).read().unwrap().unwrap().sets.remove(0).answers;
    assert_eq!(kept.iter().map(|(request, _)| request.path.as_str()).collect::<Vec<_>>(), ["secret/data/a"]);
    assert!(cache.of(None).take(&plan_of_both).is_err());
}

#[test]
fn p9_a_copy_that_is_of_no_use_is_told_and_replaced() {
    type Harm = fn(&Cache);
    let harms: [(&str, &str, Harm); 8] = [
        ("changed", "is damaged", |cache| {
            let mut bytes = fs::read(cache.path()).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            fs::write(cache.path(), bytes).unwrap();
        }),
        ("cut off", "is damaged", |cache| {
            let bytes = fs::read(cache.path()).unwrap();
            fs::write(cache.path(), &bytes[..bytes.len() - 20]).unwrap();
        }),
        ("empty", "is not a whole age file", |cache| fs::write(cache.path(), "").unwrap()),
        ("another's", "another age identity", |cache| {
            let sealed = keys(&Identity::generate()).seal(|to| to.write_all(b"{}")).unwrap();
            fs::write(cache.path(), sealed).unwrap();
        }),
        ("another form", "another version", |cache| {
            let sealed = keys(&cache.identity).seal(|to| to.write_all(br#"{"format":2,"sets":[]}"#)).unwrap();
            fs::write(cache.path(), sealed).unwrap();
        }),
        ("readable", "not yours alone", |cache| {
            fs::set_permissions(cache.path(), fs::Permissions::from_mode(0o644)).unwrap();
        }),
        ("a FIFO", "is not yours alone", |cache| {
            fs::remove_file(cache.path()).unwrap();
            mkfifoat(CWD, cache.path(), Mode::RUSR | Mode::WUSR).unwrap();
        }),
        ("large", "has more than 1064960 bytes", |cache| {
            File::options().write(true).open(cache.path()).unwrap().set_len(MAX_BYTES as u64 * 2).unwrap();
        }),
    ];
    let plan = plan(&["secret/data/a#x"]);
    for (name, told, harm) in harms {
        let cache = Cache::new();
        cache.keep(&plan, "canary", &[], HOUR);
        harm(&cache);
        let error = cache.of(None).take(&plan).unwrap_err().problem;
        assert!(error.contains(told) && !error.contains("canary"), "{name}: {error}");
        assert!(cache.of(Some(DAY)).take(&plan).unwrap().is_none(), "{name}: the stores are asked");
        cache.keep(&plan, "again", &[], HOUR);
        assert_eq!(cache.value(None, &plan, DAY).as_deref(), Some("again"), "{name}");
    }
}

#[test]
fn a_copy_has_bounds() {
    let cache = Cache::new();
    for index in 0..=MAX_SETS {
        cache.keep(&plan(&[&format!("secret/data/a{index}#x")]), "canary", &[], HOUR);
    }
    assert_eq!(cache.of(None).read().unwrap().unwrap().sets.len(), MAX_SETS);
    assert!(cache.value(None, &plan(&["secret/data/a0#x"]), DAY).is_none(), "the oldest made room");
    assert!(cache.value(None, &plan(&["secret/data/a1#x"]), DAY).is_some());

    // Base64 makes four bytes of three.
    let large = |bytes: usize| "x".repeat(bytes / 4 * 3);
    cache.keep(&plan(&["secret/data/b#x"]), &large(MAX_BYTES - 1024), &[], HOUR);
    assert_eq!(cache.of(None).read().unwrap().unwrap().sets.len(), 1, "what is older made room");
    let too_large = plan(&["secret/data/c#x"]);
    let set = cache.set(&too_large, &answered(&too_large, &large(MAX_BYTES), &[]), HOUR);
    assert!(cache.of(None).keep_set(set).is_err());
    assert!(cache.value(None, &plan(&["secret/data/b#x"]), DAY).is_some(), "what was there stays");

    let directory = cache.path().parent().unwrap().to_owned();
    for index in 0..MAX_COPIES + 3 {
        fs::write(directory.join(format!("{index}.age")), "").unwrap();
    }
    cache.keep(&plan(&["secret/data/b#x"]), "canary", &[], HOUR);
    assert_eq!(fs::read_dir(&directory).unwrap().count(), MAX_COPIES);
    assert!(cache.path().exists());
}

#[test]
fn a_name_tells_places_and_profiles_apart_and_nothing_else() {
    let path = Path::new("/home/me/shop/.hushpod.yaml");
    let names = [
        copy_name(Some(path), None, None),
        copy_name(Some(path), None, Some("prod")),
        copy_name(Some(path), Some("prod"), None),
        copy_name(Some(Path::new("/home/me/.hushpod.yaml")), None, None),
        copy_name(None, None, None),
    ];
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    assert!(names.iter().all(|name| name.len() == 36 && !name.contains("shop") && !name.contains("prod")), "{names:?}");
}
