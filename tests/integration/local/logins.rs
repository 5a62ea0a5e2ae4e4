//! Logins that a store's own program made: stand-ins for the programs, and for the stores.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::UNIX_EPOCH;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::private_files::soon;
use super::{CANARY, Machine, text};
use crate::fakes::aws::{ACCOUNT, FakeAws, REGION, SSO_TOKEN};
use crate::fakes::azure::{FakeAzure, TENANT};
use crate::fakes::gcp::FakeGcp;
use crate::fakes::infisical::{FakeInfisical, Identity, PROJECT, Year};
use crate::fakes::server::Fault;

/// A home directory with one store, and with programs of its own.
struct Person {
    machine: Machine,
    bin: PathBuf,
}

impl Person {
    fn new(kind: &str, settings: Value) -> Self {
        let mut provider = settings;
        provider["type"] = json!(kind);
        let machine = Machine::new(&json!({"defaultProvider": "store", "providers": {"store": provider}}).to_string());
        let bin = machine.directory.path().join("bin");
        fs::create_dir(&bin).unwrap();
        Self { machine, bin }
    }

    fn home(&self, file: &str) -> PathBuf {
        self.machine.directory.path().join(file)
    }

    fn write(&self, file: &str, text: &str) {
        let file = self.home(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    /// A program that notes its words and does this.
    fn program(&self, name: &str, script: &str) {
        let file = self.bin.join(name);
        fs::write(&file, format!("#!/bin/sh\nPATH=/usr/bin:/bin\necho \"$@\" >>\"$HOME/words\"\n{script}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A program that prints this.
    fn prints(&self, name: &str, printed: &str) {
        fs::write(self.bin.join("printed"), printed).unwrap();
        self.program(name, &format!("cat '{}'", self.bin.join("printed").display()));
    }

    /// What its programs were asked since the last time.
    fn take_words(&self) -> String {
        let words = fs::read_to_string(self.home("words")).unwrap_or_default();
        let _ = fs::remove_file(self.home("words"));
        words
    }

    /// Not in the way of the fakes, which answer in this thread.
    async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.machine.command(arguments);
        // This machine may have these programs, too.
        command.env("PATH", &self.bin).env("HUSHPOD_TRUST", "1");
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    async fn reads(&self, reference: &str, value: &str) {
        let output = self.run(&["get", reference]).await;
        assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).as_str()), (value, ""), "{reference}");
    }

    /// Exit code and sentences of a login that is not to be had.
    async fn refused(&self, arguments: &[&str], code: i32, part: &str) {
        let output = self.run(&[&["login", "status"], arguments].concat()).await;
        let told = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.code() == Some(code) && told.contains(part), "{part}: {told}");
        assert!(!told.contains("canary"), "{part}: {told}");
    }

    async fn is_good(&self, part: &str) {
        let status = self.run(&["login", "status"]).await;
        let line = text(&status.stdout);
        assert!(status.status.success() && line.contains(part) && !line.contains("canary"), "{part}: {status:?}");
    }

    /// All files of the home directory, with their bytes.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        fn gather(directory: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) {
            for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
                match entry.path() {
                    path if path.is_dir() => gather(&path, into),
                    path => drop(into.insert(path.clone(), fs::read(path).unwrap())),
                }
            }
        }
        let mut files = BTreeMap::new();
        gather(self.machine.directory.path(), &mut files);
        files
    }
}

fn now() -> u64 {
    UNIX_EPOCH.elapsed().unwrap().as_secs()
}

/// A point in time as AWS writes it.
fn iso(seconds: u64) -> String {
    let at = aws_smithy_types::DateTime::from_secs(i64::try_from(seconds).unwrap());
    at.fmt(aws_smithy_types::date_time::Format::DateTime).unwrap()
}

#[tokio::test]
async fn az_is_asked_for_the_vaults_token() {
    let azure = FakeAzure::start().await;
    azure.world().put("db", CANARY);
    let token = azure.world().new_token(3600);
    let person = Person::new("azure", azure.settings());
    person.refused(&[], 1, "no az in PATH to ask for its login: install it and run `az login --tenant").await;
    let printed = json!({"accessToken": token, "expiresOn": "2026-11-29 21:00:00.000000", "expires_on": now() + 3600,
        "subscription": "s", "tenant": TENANT, "tokenType": "Bearer"});
    person.prints("az", &printed.to_string());
    let before = person.files();
    person.reads("db", CANARY).await;
    let words = person.take_words();
    let expected = "account get-access-token --output=json --resource=https://vault.azure.net --tenant=";
    assert_eq!(words, format!("{expected}{TENANT}\n"));
    person.is_good("good for 59m").await;
    person.take_words();
    assert_eq!(person.files(), before, "no token is kept");

    for (script, code, part) in [
        ("echo canary; echo canary >&2; exit 1", 4, "az has no login, or it has ended: run `az login --tenant"),
        ("echo canary", 4, "something other than a token: run `az login"),
        ("echo '{\"accessToken\": \"\"}'", 4, "something other than a token"),
        ("echo '{\"accessToken\": \"canary\", \"expires_on\": 1}'", 4, "something other than a token"),
        ("head -c 1048576 /dev/zero", 1, "az prints more than 64 KiB"),
        (":", 1, "az prints nothing"),
    ] {
        person.program("az", script);
        person.refused(&[], code, part).await;
    }
    // Its child is ended with it.
    person.program("az", "sleep 600 & echo $! >\"$HOME/child\"; wait");
    person.refused(&["--timeout", "2s"], 5, "no answer within 2 s").await;
    let child = fs::read_to_string(person.home("child")).unwrap();
    let stat = format!("/proc/{}/stat", child.trim());
    soon("it ends", || fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z ")));
}

/// A terminal's Ctrl-C does not reach it, which has a process group of its own.
#[tokio::test]
async fn who_ends_us_ends_the_stores_program() {
    let azure = FakeAzure::start().await;
    let person = Person::new("azure", azure.settings());
    person.program("az", "sleep 600 & echo $! >\"$HOME/child.new\"; mv \"$HOME/child.new\" \"$HOME/child\"; wait");
    let read = || fs::read_to_string(person.home("child"));
    // Who runs this under nohup, or behind a shell's other jobs, ignores some, and so do we.
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
    let ignored = u64::from_str_radix(ignored, 16).unwrap();
    let heard = |signal: Signal| if ignored >> (signal.as_raw() - 1) & 1 == 1 { Signal::TERM } else { signal };
    for (signal, arguments) in [
        (Signal::INT, &["get", "db"][..]),
        (Signal::TERM, &["run", "--env", "A=db", "--", "true"]),
        (Signal::HUP, &["login", "status"]),
        (Signal::INT, &["run", "--watch", "--mask", "always", "--env", "A=db", "--", "true"]),
    ] {
        let signal = heard(signal);
        let _ = fs::remove_file(person.home("child"));
        let mut command = person.machine.command(arguments);
        command.env("PATH", &person.bin).env("HUSHPOD_TRUST", "1").stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        soon("it is asked", || read().is_ok());
        kill_process(Pid::from_child(&child), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.signal(), Some(signal.as_raw()), "{arguments:?}: {output:?}");
        let stat = format!("/proc/{}/stat", read().unwrap().trim());
        soon("it ends", || fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z ")));
    }
    // Who was started to ignore a signal, as by nohup, goes on; and so does the program.
    let _ = fs::remove_file(person.home("child"));
    person.program("az", "echo asked >\"$HOME/child\"; while [ ! -e \"$HOME/go\" ]; do sleep 0.05; done; exit 1");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" get db", env!("CARGO_BIN_EXE_hushpod")]);
    command.current_dir(person.machine.project()).env_clear().env("HOME", person.machine.directory.path());
    command.env("PATH", format!("{}:/usr/bin:/bin", person.bin.display())).env("HUSHPOD_TRUST", "1");
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    soon("it is asked", || read().is_ok());
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    person.write("go", "");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.code() == Some(4) && text(&output.stderr).contains("az has no login"), "{output:?}");
}

#[tokio::test]
async fn p6_a_repository_names_no_program() {
    let azure = FakeAzure::start().await;
    let person = Person::new("azure", azure.settings());
    let project = person.machine.project();
    for directory in [project.clone(), project.join("bin")] {
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("az"), "#!/bin/sh\ntouch \"$HOME/was-run\"\n").unwrap();
        fs::set_permissions(directory.join("az"), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = person.machine.command(&["login", "status"]);
    command.env("PATH", ":.:bin:./bin").env("HUSHPOD_TRUST", "1");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(text(&output.stderr).contains("no az in PATH"), "{output:?}");
    assert!(!person.home("was-run").exists());
    // What begins with '-' is a tenant all the same.
    let mut settings = azure.settings();
    settings["tenant"] = json!("-o");
    let person = Person::new("azure", settings);
    person.program("az", "exit 1");
    person.refused(&[], 4, "az has no login").await;
    assert!(person.take_words().ends_with(" --tenant=-o\n"));
}

#[tokio::test]
async fn gcloud_is_asked_where_there_are_no_default_credentials() {
    let gcp = FakeGcp::start().await;
    gcp.world().put("db", CANARY.as_bytes());
    let token = gcp.world().token_of_person(3600);
    let person = Person::new("gcp", gcp.settings());
    person.refused(&[], 1, "no gcloud in PATH to ask for its login: install it and run `gcloud auth login`").await;
    let printed = json!({"configuration": {"active_configuration": "default", "properties": {"core": {"project": "shop"}}},
        "credential": {"access_token": token, "token_expiry": iso(now() + 3600)}});
    person.prints("gcloud", &printed.to_string());
    person.reads("db", CANARY).await;
    assert_eq!(person.take_words(), "config config-helper --format=json --quiet\n");
    person.is_good("good for 59m").await;
    person.program("gcloud", "echo canary >&2; exit 1");
    person.refused(&[], 4, "gcloud has no login, or it has ended: run `gcloud auth login`").await;
    // The file goes before.
    person.take_words();
    person.write(".config/gcloud/application_default_credentials.json", "{\"type\": \"canary\"}");
    person.refused(&[], 1, "application default credentials: unknown type of file").await;
    assert_eq!(person.take_words(), "");
}

#[tokio::test]
async fn infisicals_program_is_asked_for_a_login_at_that_very_address() {
    let infisical = FakeInfisical::of(Year::Y2026).await;
    let token = {
        let mut server = infisical.server();
        server.set_identity("person", Identity::default());
        server.put("prod", "/", "TOKEN", CANARY);
        server.make_token("person")
    };
    let address = infisical.url();
    let settings =
        json!({"address": address, "ca": infisical.certificates.ca, "project": PROJECT, "environment": "prod"});
    let person = Person::new("infisical", settings);
    person.prints("infisical", &format!("{token}\n"));
    let login = format!("run `infisical login --domain={address}`");
    person.refused(&[], 4, &format!("nobody is logged in with Infisical's command line: {login}")).await;
    let user = |domain: &str| json!({"loggedInUserEmail": "me@example.com", "LoggedInUserDomain": domain}).to_string();
    person.write(".infisical/infisical-config.json", &user("https://app.infisical.com/api"));
    person.refused(&[], 4, &format!("is logged in elsewhere: {login}")).await;
    assert_eq!(person.take_words(), "", "a program that would begin a login is not run");
    person.write(".infisical/infisical-config.json", &user(&format!("{address}/api")));
    person.reads("store:/#TOKEN", CANARY).await;
    let words = person.take_words();
    assert_eq!(words, format!("user get token --plain --silent --domain={address}\n"), "not a repository's own");
    person.is_good("good for").await;
    let claims = "eyJleHAiOjF9";
    for (printed, part) in
        [("canary".to_owned(), "something other than a token"), (format!("canary.{claims}.canary"), "has ended")]
    {
        person.prints("infisical", &printed);
        person.refused(&[], 4, part).await;
    }
}

/// A person with profiles of AWS, and a secret that the role of one may read.
async fn aws() -> (FakeAws, Person) {
    let aws = FakeAws::start().await;
    aws.put_role(&format!("arn:aws:iam::{ACCOUNT}:role/Developer"), "nobody", &[("secretsmanager:*", "db")]);
    let settings = json!({"region": REGION, "endpoint": aws.url(), "stsEndpoint": aws.url(), "ssoEndpoint": aws.url(),
        "ca": aws.certificates.ca});
    let person = Person::new("aws", settings);
    let config = format!(
        "[default]\nsso_session = corp\nsso_account_id = {ACCOUNT}\nsso_role_name = Developer\n\
         [profile other]\nsso_session = corp\nsso_account_id = {ACCOUNT}\nsso_role_name = Nobody\n\
         [profile old]\nsso_start_url = https://corp.example/start\nsso_region = {REGION}\n\
         sso_account_id = {ACCOUNT}\nsso_role_name = Developer\n\
         [profile my chain]\nsource_profile = default\nrole_arn = arn:aws:iam::{ACCOUNT}:role/Developer\n\
         [sso-session corp]\nsso_start_url = https://corp.example/start\nsso_region = {REGION}\n"
    );
    person.write(".aws/config", &config);
    (aws, person)
}

/// What `aws sso login` leaves for a session.
fn leave_login(person: &Person, session: &str, token: &str, ends: &str) {
    let name = hex::encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, session.as_bytes()));
    let login = json!({"startUrl": "https://corp.example/start", "region": REGION, "accessToken": token,
        "expiresAt": ends, "clientId": "canary", "clientSecret": "canary", "refreshToken": "canary"});
    person.write(&format!(".aws/sso/cache/{name}.json"), &login.to_string());
}

#[tokio::test]
async fn what_aws_sso_login_left_buys_a_roles_keys() {
    let (aws, person) = aws().await;
    aws.put_secret("db", CANARY);
    let good = iso(now() + 3600);
    person.refused(&[], 4, "there is no AWS login, or it has ended: run `aws sso login --profile default`").await;
    leave_login(&person, "corp", SSO_TOKEN, &good);
    let before = person.files();
    person.reads("db", CANARY).await;
    person.is_good("profile").await;
    person.is_good("good for 59m").await;
    assert_eq!(person.files(), before, "nothing is kept");

    let with = |profile: &str| {
        let settings = fs::read_to_string(person.machine.project().join(".hushpod.yaml")).unwrap();
        let mut project: Value = serde_json::from_str(&settings).unwrap();
        project["providers"]["store"]["auth"] = json!({"method": "profile", "profile": profile});
        person.machine.write(".hushpod.yaml", &project.to_string());
    };
    with("other");
    person.refused(&[], 4, &format!("no role Nobody in account {ACCOUNT} for this login")).await;
    with("old");
    person.refused(&[], 4, "run `aws sso login --profile old`").await;
    leave_login(&person, "https://corp.example/start", SSO_TOKEN, &good.replace('Z', "UTC"));
    person.is_good("good for 59m").await;
    for (token, ends, text) in [("canary-revoked", good.as_str(), None), ("", "", Some("canary")), ("", "", Some(""))] {
        leave_login(&person, "https://corp.example/start", token, ends);
        if let Some(text) = text {
            let name = hex::encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, b"https://corp.example/start"));
            person.write(&format!(".aws/sso/cache/{name}.json"), text);
        }
        person.refused(&[], 4, "run `aws sso login --profile old`").await;
    }
    leave_login(&person, "https://corp.example/start", SSO_TOKEN, &good);
    for (fault, code, part) in [
        (Fault::Status(500, Vec::new(), "canary".into()), 5, "fails at the login with status 500"),
        (Fault::Status(429, Vec::new(), "canary".into()), 5, "patience"),
        (Fault::Body("canary".into()), 5, "not the access portal's JSON"),
    ] {
        aws.fail(|received| received.path == "/federation/credentials", 1, fault);
        person.refused(&[], code, part).await;
    }
}

#[tokio::test]
async fn who_never_logged_in_is_denied_and_told_how() {
    let region = |method: &str| json!({"region": REGION, "auth": {"method": method}});
    for (kind, settings, part) in [
        ("vault", json!({"address": "https://127.0.0.1:1"}), "there is no Vault token: log in with `vault login`"),
        ("aws", json!({"region": REGION}), "there is no AWS profile \"default\""),
        ("ssm", region("profile"), "there is no AWS profile \"default\""),
        ("aws", region("environment"), "there are no AWS credentials: AWS_ACCESS_KEY_ID is not set"),
    ] {
        Person::new(kind, settings).refused(&[], 4, part).await;
    }
}

#[tokio::test]
async fn other_profiles_and_ended_logins_are_awss_own_programs_to_resolve() {
    let (aws, person) = aws().await;
    leave_login(&person, "corp", "canary-ended", &iso(now() - 60));
    person
        .refused(&[], 1, "no aws in PATH to ask for its login: install it and run `aws sso login --profile default`")
        .await;
    let printed = json!({"Version": 1, "AccessKeyId": "ASIAX", "SecretAccessKey": "canary", "SessionToken": "canary",
        "Expiration": iso(now() + 3600).replace('Z', "+00:00")});
    person.prints("aws", &printed.to_string());
    person.is_good("good for 59m").await;
    assert_eq!(person.take_words(), "configure export-credentials --format=process --profile=default\n");
    aws.take_seen();
    let mut command = person.machine.command(&["login", "status"]);
    command.env("PATH", &person.bin).env("HUSHPOD_TRUST", "1").env("AWS_PROFILE", "my chain");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(person.take_words(), "configure export-credentials --format=process --profile=my chain\n");
    assert!(aws.take_seen().is_empty(), "nobody else is asked");
    for (script, code, part) in [
        ("echo canary >&2; exit 255", 4, "aws has no login, or it has ended: run `aws sso login --profile default`"),
        ("echo canary", 4, "something other than credentials: run `aws sso login --profile default`"),
    ] {
        person.program("aws", script);
        person.refused(&[], code, part).await;
    }
    // A file that is named by a repository may name a program.
    person.take_words();
    let settings = fs::read_to_string(person.machine.project().join(".hushpod.yaml")).unwrap();
    let mut project: Value = serde_json::from_str(&settings).unwrap();
    project["providers"]["store"]["auth"] =
        json!({"method": "profile", "profile": "x", "configFile": person.home("config")});
    person.machine.write(".hushpod.yaml", &project.to_string());
    person.write("config", "[profile x]\ncredential_process = touch /nonexistent/canary\n");
    person.refused(&[], 1, "leave auth.credentialsFile and auth.configFile out").await;
    assert_eq!(person.take_words(), "");
}
