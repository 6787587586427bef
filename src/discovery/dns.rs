//! Looks names up in DNS, again and again, as often as the TTL requires.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use futures_util::{StreamExt as _, stream};

use super::answers::{Addresses, OfName, OfServices, Round};
use super::desk::Desk;
use crate::net::dns::Resolver;
use crate::net::sleep;

/// How many targets are looked up at the same time.
const ASKED_AT_ONCE: usize = 16;

/// Uses the addresses of a name as backends.
pub(super) async fn addresses(desk: Desk, host: String, port: u16, server: Option<SocketAddr>) {
    let mut known = OfName::new(desk.place(), port, &desk.found_before());
    loop {
        let round = known.take(addresses_of(&Resolver::new(server).await, &host).await);
        settle(&desk, round).await;
    }
}

/// Uses the targets of the SRV records of a name as backends.
pub(super) async fn services(desk: Desk, name: String, server: Option<SocketAddr>) {
    let mut known = OfServices::new(&desk.found_before());
    loop {
        let resolver = &Resolver::new(server).await;
        let services = match resolver {
            Ok(resolver) => resolver.services(&name).await,
            Err(why) => Err(why.clone()),
        };
        let told = services.iter().flat_map(|told| &told.records);
        let targets: BTreeSet<String> = told.map(|it| it.target.clone()).collect();
        let asked = targets.into_iter().filter(|it| !it.is_empty()).map(|target| async move {
            // It is a full name, however many dots it has.
            let answers = addresses_of(resolver, &format!("{target}.")).await;
            (target, answers)
        });
        let answers = stream::iter(asked).buffer_unordered(ASKED_AT_ONCE);
        let answers: BTreeMap<String, Addresses> = answers.collect().await;
        settle(&desk, known.take(services, answers)).await;
    }
}

/// Applies the result of a round, and waits until the next one.
async fn settle(desk: &Desk, round: Round) {
    let Round { servers, again, trouble } = round;
    let is_told = servers.is_some();
    let used = servers.map_or(Ok(()), |servers| desk.found(&servers));
    match (trouble, used) {
        (Some(trouble), _) => desk.failed(&trouble),
        (None, Err(why)) => desk.failed(&why),
        (None, Ok(())) if is_told => desk.is_well(),
        (None, Ok(())) => {}
    }
    sleep(again).await;
}

/// Each round has a new resolver, because the servers of the system may have changed.
async fn addresses_of(resolver: &Result<Resolver, String>, name: &str) -> Addresses {
    match resolver {
        Ok(resolver) => {
            let (v4, v6) = resolver.addresses(name).await;
            Addresses { v4, v6 }
        }
        Err(why) => Addresses { v4: Err(why.clone()), v6: Err(why.clone()) },
    }
}
