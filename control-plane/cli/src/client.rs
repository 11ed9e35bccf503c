//! Clients of the API server for the parts that run in its process: the same service as over the
//! network, without a socket.

use hull_apiserver::{ApiServer, UserInfo};

/// A client that acts as `user`.
pub fn in_process(server: &ApiServer, user: UserInfo) -> kube::Client {
    kube::Client::new(server.local_service(user), "default")
}
