//! A port of 127.0.0.1 that stays a test's own while nobody listens on it: a server that was killed finds it again.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use socket2::{Domain, Socket, Type};

/// A free port, taken. A socket that is bound and does not listen keeps it from everybody who asks the system for any
/// port, and whoever names it can listen there, as every server sets `SO_REUSEADDR`. Nobody listens: refused.
pub struct HeldPort {
    number: u16,
    _holder: Socket,
}

impl HeldPort {
    pub fn take() -> Self {
        let holder = bound(0);
        let number = holder.local_addr().unwrap().as_socket_ipv4().unwrap().port();
        Self { number, _holder: holder }
    }

    pub fn number(&self) -> u16 {
        self.number
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }

    /// Listens on it, until what is returned is dropped.
    pub fn listen(&self) -> TcpListener {
        let socket = bound(self.number);
        socket.listen(128).unwrap();
        socket.into()
    }
}

fn bound(port: u16) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).unwrap();
    socket
}
