//! The DNS server of the tests (RFC 1035): answers over UDP what a test has put into its zone.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use mooring::tasks::Tasks;
use tokio::net::UdpSocket;

/// Response codes (RFC 1035 section 4.1.1).
pub(crate) const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;

const A: u16 = 1;
const SRV: u16 = 33;
const AAAA: u16 = 28;

/// What a zone says.
#[derive(Debug, Default)]
pub(crate) struct Zone {
    addresses: BTreeMap<String, Vec<IpAddr>>,
    services: BTreeMap<String, Vec<(String, u16)>>,
    /// For how many seconds it holds.
    pub(crate) ttl: u32,
    /// Answered to everything, if it is not 0.
    pub(crate) failure: u8,
    /// Nothing is answered at all.
    pub(crate) is_silent: bool,
    /// How many questions came.
    pub(crate) asked: usize,
}

impl Zone {
    /// These are the addresses of a name; the name is there also without any.
    pub(crate) fn has(&mut self, name: &str, addresses: &[IpAddr]) {
        self.addresses.insert(format!("{name}."), addresses.to_vec());
    }

    /// These are its services.
    pub(crate) fn serves(&mut self, name: &str, services: &[(&str, u16)]) {
        let services = services.iter().map(|(target, port)| (format!("{target}."), *port));
        self.services.insert(format!("{name}."), services.collect());
    }

    /// There is no such name.
    pub(crate) fn forget(&mut self, name: &str) {
        self.addresses.remove(&format!("{name}."));
        self.services.remove(&format!("{name}."));
    }
}

/// A server that ends when it is dropped.
#[derive(Debug)]
pub(crate) struct DnsServer {
    pub(crate) at: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    tasks: Tasks,
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl DnsServer {
    pub(crate) async fn start() -> Self {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
        let (at, zone, tasks) = (socket.local_addr().unwrap(), Arc::default(), Tasks::default());
        let serve = serve(socket, Arc::clone(&zone));
        let stopping = tasks.child_token();
        tasks.spawn(async move {
            tokio::select! {
                () = serve => {}
                () = stopping.cancelled() => {}
            }
        });
        let server = Self { at, zone, tasks };
        server.set(|zone| zone.ttl = 1);
        server
    }

    pub(crate) fn set<T>(&self, change: impl FnOnce(&mut Zone) -> T) -> T {
        change(&mut self.zone.lock().unwrap())
    }
}

async fn serve(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    let mut buffer = [0; 1500];
    loop {
        let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
        let answer = answer(&buffer[..len], &mut zone.lock().unwrap());
        if let Some(answer) = answer {
            socket.send_to(&answer, from).await.unwrap();
        }
    }
}

fn answer(question: &[u8], zone: &mut Zone) -> Option<Vec<u8>> {
    zone.asked += 1;
    if zone.is_silent {
        return None;
    }
    let (name, end) = read_name(question, 12);
    let kind = u16::from_be_bytes([question[end], question[end + 1]]);
    let (code, records) = match zone.failure {
        0 => records(zone, &name, kind),
        code => (code, Vec::new()),
    };
    let count = u16::try_from(records.len()).unwrap().to_be_bytes();
    // A response, authoritative, recursion as desired and available; one question.
    let mut answer = [&question[..2], &[0x85, 0x80 | code, 0, 1], &count, &[0; 4]].concat();
    answer.extend_from_slice(&question[12..end + 4]);
    for (kind, data) in records {
        // The name is that of the question.
        answer.extend_from_slice(&[0xc0, 12]);
        answer.extend_from_slice(&kind.to_be_bytes());
        answer.extend_from_slice(&[0, 1]);
        answer.extend_from_slice(&zone.ttl.to_be_bytes());
        answer.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
        answer.extend_from_slice(&data);
    }
    Some(answer)
}

fn records(zone: &Zone, name: &str, kind: u16) -> (u8, Vec<(u16, Vec<u8>)>) {
    let (addresses, services) = (zone.addresses.get(name), zone.services.get(name));
    if addresses.is_none() && services.is_none() {
        return (NXDOMAIN, Vec::new());
    }
    let of_address = addresses.into_iter().flatten().map(|ip| match ip {
        IpAddr::V4(ip) => (A, ip.octets().to_vec()),
        IpAddr::V6(ip) => (AAAA, ip.octets().to_vec()),
    });
    let of_service = services.into_iter().flatten().map(|(target, port)| {
        let mut data = vec![0, 1, 0, 1];
        data.extend_from_slice(&port.to_be_bytes());
        write_name(&mut data, target);
        (SRV, data)
    });
    (0, of_address.chain(of_service).filter(|(it, _)| *it == kind).collect())
}

/// A name in small letters, and where it ends.
fn read_name(message: &[u8], mut at: usize) -> (String, usize) {
    let mut name = String::new();
    while message[at] != 0 {
        let len = usize::from(message[at]);
        let label = String::from_utf8_lossy(&message[at + 1..at + 1 + len]);
        name += &label.to_ascii_lowercase();
        name.push('.');
        at += 1 + len;
    }
    (name, at + 1)
}

fn write_name(message: &mut Vec<u8>, name: &str) {
    for label in name.split('.').filter(|label| !label.is_empty()) {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
}
