//! Stores for agents: the test suite's own, over TLS.

use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;

#[path = "../../integration/fakes"]
#[allow(
    dead_code,
    unused_imports,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::panic,
    clippy::unwrap_used,
    reason = "written for the integration tests"
)]
mod fakes {
    pub(crate) mod azure;
    pub(crate) mod gcp;
    pub(crate) mod infisical;
    pub(crate) mod server;
    pub(crate) mod tls;
    pub(crate) mod token;
    pub(crate) mod vault;
}

use fakes::azure::{self, FakeAzure};
use fakes::gcp::{self, FakeGcp};
use fakes::infisical::{FakeInfisical, Identity};
use fakes::token;
use fakes::vault::{FakeVault, ROOT};
use serde_json::{Value, json};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to write the authority's certificate
    #[arg(long, required_unless_present = "clouds")]
    ca: Option<PathBuf>,
    /// Infisical, for pods of a cluster whose keys (JWKS) are in this file, instead of Vault
    #[arg(long, requires = "listen")]
    infisical: Option<PathBuf>,
    /// Where Infisical listens
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Azure Key Vault and Google Secret Manager with so many secrets each, instead of Vault
    #[arg(long)]
    clouds: Option<u32>,
}

/// Prints where it listens, and Vault's root token. Infisical is told what it holds on standard input, a line each:
/// `{"identity": id, "namespace": …, "names": […]}`, answered by `{"token": …}` for that identity, or
/// `{"path": …, "key": …, "value": …}`, answered by `{}`. The clouds print what a provider, its role and a pod's token
/// have to be; each line on standard input is the value that all their secrets have from then on, answered by `{}`.
pub(crate) fn run(args: &Args) -> super::Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    if let (Some(keys), Some(listen)) = (&args.infisical, args.listen) {
        let keys = serde_json::from_slice(&fs::read(keys)?)?;
        let store = runtime.block_on(FakeInfisical::for_cluster(listen, keys));
        write_ca(args, &store.certificates.ca)?;
        println!("{}", json!({"address": store.url()}));
        for line in std::io::stdin().lines() {
            println!("{}", instruct(&store, &serde_json::from_str(&line?)?));
        }
        return Ok(());
    }
    if let Some(count) = args.clouds {
        let (azure, gcp) = runtime.block_on(async { (FakeAzure::start().await, FakeGcp::start().await) });
        let pods = json!({
            "azure": {"settings": azure.settings(), "role": azure::CLIENT_ID, "token": token::sign(&azure::claims(), 3600)},
            "gcp": {"settings": gcp.settings(), "auth": gcp.federation(), "role": gcp::ACCOUNT,
                "token": token::sign(&gcp::claims(), 3600)},
        });
        println!("{pods}");
        for line in std::io::stdin().lines() {
            let value = line?;
            for number in 0..count {
                azure.world().put(&format!("bench-{number}"), &value);
                gcp.world().put(&format!("bench-{number}"), value.as_bytes());
            }
            println!("{{}}");
        }
        return Ok(());
    }
    let store = runtime.block_on(FakeVault::start());
    write_ca(args, &store.certificates.ca)?;
    println!("{}", json!({"address": format!("https://{}", store.address), "token": ROOT}));
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn write_ca(args: &Args, certificate: &str) -> std::io::Result<()> {
    args.ca.as_ref().map_or(Ok(()), |file| fs::write(file, certificate))
}

fn instruct(store: &FakeInfisical, line: &Value) -> Value {
    let text = |field: &str| line[field].as_str().unwrap_or_default();
    if let Some(id) = line["identity"].as_str() {
        let names =
            line["names"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        let identity = Identity { namespaces: vec![text("namespace").to_owned()], names, ..Identity::default() };
        let mut server = store.server();
        server.set_identity(id, identity);
        json!({"token": server.make_token(id)})
    } else {
        store.server().put("prod", text("path"), text("key"), text("value"));
        json!({})
    }
}
