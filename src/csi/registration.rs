//! The driver tells kubelet of itself, without a container for it: a socket in kubelet's registration directory, at which
//! kubelet asks who is there. (https://github.com/kubernetes/kubernetes/tree/v1.37.2/pkg/kubelet/pluginmanager)

use std::sync::Mutex;

use tokio::sync::{oneshot, watch};
use tonic::{Request, Response, Status};
use tracing::{error, info};

use super::proto::registration::registration_server::Registration;
use super::proto::registration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use crate::contract::CSI_DRIVER;
use crate::sentence::one_line;

/// What kubelet calls drivers.
const KIND: &str = "CSIPlugin";
/// Of the interface. kubelet looks at the first number alone.
const VERSION: &str = "1.13.0";

/// kubelet sends the socket's path as `:authority`, percent-encoded, which no other gRPC library than its own takes for a
/// host (kubernetes/kubernetes#109081): in front of an `@`, it is a user's name, where such characters may stand.
pub(super) const REGISTRATION_SOCKET: &str = "kubelet@csi.hushpod.dev-reg.sock";

/// Answers kubelet's questions.
pub(super) struct RegistrationService {
    /// The driver's socket, as kubelet sees it.
    pub(super) endpoint: String,
    /// Hears whether it is registered, once.
    pub(super) registered: Mutex<Option<oneshot::Sender<Result<(), String>>>>,
    /// How often it was, so far: kubelet does it again whenever it starts.
    pub(super) registrations: watch::Sender<u64>,
}

#[tonic::async_trait]
impl Registration for RegistrationService {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: KIND.to_owned(),
            name: CSI_DRIVER.to_owned(),
            endpoint: self.endpoint.clone(),
            supported_versions: vec![VERSION.to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        status: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let RegistrationStatus { plugin_registered, error: problem } = status.into_inner();
        let outcome = if plugin_registered {
            info!(driver = CSI_DRIVER, "kubelet has registered the driver");
            self.registrations.send_modify(|count| *count += 1);
            Ok(())
        } else {
            let problem = one_line(&problem);
            error!(problem, "kubelet does not register the driver");
            Err(problem)
        };
        let told = self.registered.lock().ok().and_then(|mut told| told.take());
        if let Some(told) = told {
            // Nobody waits any more if the driver ends.
            let _ = told.send(outcome);
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::uri::Authority;

    use super::*;

    #[test]
    fn the_sockets_path_is_an_authority_as_kubelet_sends_it() {
        // As grpc-go escapes it: `encodeAuthority`.
        let sent = |socket: &str| format!("%2Fvar%2Flib%2Fkubelet%2Fplugins_registry%2F{socket}");
        assert!(sent(REGISTRATION_SOCKET).parse::<Authority>().is_ok());
        assert!(sent("csi.hushpod.dev-reg.sock").parse::<Authority>().is_err(), "or this would show nothing");
        assert!(REGISTRATION_SOCKET.contains(CSI_DRIVER) && !REGISTRATION_SOCKET.starts_with('.'));
    }

    #[tokio::test]
    async fn the_driver_hears_what_becomes_of_its_registration() {
        for (plugin_registered, problem, expected) in [
            (true, "", Ok(())),
            // What kubelet says becomes a line of the log, and the driver's last word.
            (false, "no\nsuch version", Err(r"no\nsuch version".to_owned())),
        ] {
            let (told, mut registered) = tokio::sync::oneshot::channel();
            let registrations = watch::Sender::new(0);
            let endpoint = "/var/lib/kubelet/plugins/csi.hushpod.dev/csi.sock".to_owned();
            let service = RegistrationService { endpoint, registered: Mutex::new(Some(told)), registrations };
            let info = service.get_info(Request::new(InfoRequest {})).await.unwrap().into_inner();
            assert_eq!((info.name.as_str(), info.r#type.as_str()), (CSI_DRIVER, "CSIPlugin"));
            assert_eq!((info.endpoint, info.supported_versions), (service.endpoint.clone(), vec![VERSION.to_owned()]));
            assert!(registered.try_recv().is_err(), "nobody has said so yet");
            let status = RegistrationStatus { plugin_registered, error: problem.to_owned() };
            // kubelet says it again whenever it starts.
            for times in 1..=2 {
                service.notify_registration_status(Request::new(status.clone())).await.unwrap();
                assert_eq!(*service.registrations.borrow(), if plugin_registered { times } else { 0 });
            }
            assert_eq!(registered.try_recv().unwrap(), expected);
        }
    }
}
