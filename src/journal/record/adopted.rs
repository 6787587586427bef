//! Gives a user what belongs to nobody (`auth.adopt`): what was written before there were users,
//! by Mooring 0.1 or with `auth.mode = "off"`. Pure.
//!
//! It belongs to nobody if a client made it that is no user's. Files and assets without such a
//! client stay as they are: a browser or an address may have been that of a user.

use std::collections::HashSet;
use std::sync::Arc;

use super::{AssetRecord, Batch, FileRecord, MakerRecord, PersonRecord, PromptRecord, Saved};
use crate::routing::ids::ClientId;
use crate::routing::realm::{ClientName, Realm};

/// Adds the adoption of these records to the changes of their kind.
macro_rules! adopt {
    ($records:expr, $realm:expr, $changes:expr) => {
        for (key, record) in $records {
            if let Some(adopted) = record.adopted($realm) {
                $changes.insert(key.clone(), Some(adopted));
            }
        }
    };
}

impl Saved {
    /// The changes that give all clients, prompts, files and assets of nobody to this user. After
    /// them there are none left to give.
    #[must_use]
    pub fn adoption(&self, user: &Arc<str>) -> Batch {
        let realm = Realm::User(Arc::clone(user));
        let known: HashSet<&ClientId> = self.clients.iter().map(|(client, _)| client).collect();
        let mut batch = Batch::default();
        for (client, record) in &self.clients {
            let Some(adopted) = of_realm(client, &realm) else { continue };
            batch.clients.insert(client.clone(), None);
            // A client of the user may have this name already. It stays where it is.
            if !known.contains(&adopted) {
                batch.clients.insert(adopted, Some(record.clone()));
            }
        }
        adopt!(&self.prompts, &realm, batch.prompts);
        adopt!(&self.files, &realm, batch.files);
        adopt!(&self.assets, &realm, batch.assets);
        batch
    }
}

/// The client of this name in a realm. `None` for a client of a user.
fn of_realm(client: &ClientId, realm: &Realm) -> Option<ClientId> {
    let name = ClientName::parse(client.name()).ok().filter(|_| client.user().is_none())?;
    Some(realm.client(name))
}

impl PromptRecord {
    fn adopted(&self, realm: &Realm) -> Option<Self> {
        let client = of_realm(&ClientId::parse(&self.client).ok()?, realm)?.to_string();
        let person = realm.person().as_ref().map(PersonRecord::new);
        Some(Self { client, person, ..self.clone() })
    }
}

impl FileRecord {
    fn adopted(&self, realm: &Realm) -> Option<Self> {
        let makers = adopted(&self.makers, realm)?;
        Some(Self { makers, ..self.clone() })
    }
}

impl AssetRecord {
    fn adopted(&self, realm: &Realm) -> Option<Self> {
        let makers = adopted(&self.makers, realm)?;
        Some(Self { makers, ..self.clone() })
    }
}

/// The makers after the adoption. `None` if none of them changes.
fn adopted(makers: &[MakerRecord], realm: &Realm) -> Option<Vec<MakerRecord>> {
    let adopted = |maker: &MakerRecord| match maker {
        MakerRecord::Client(client) => {
            let client = of_realm(&ClientId::parse(client).ok()?, realm)?;
            Some(MakerRecord::Client(client.to_string()))
        }
        MakerRecord::Browser(_) | MakerRecord::Address(_) | MakerRecord::User(_) => None,
    };
    let is_any = makers.iter().any(|maker| adopted(maker).is_some());
    is_any.then(|| makers.iter().map(|it| adopted(it).unwrap_or_else(|| it.clone())).collect())
}

#[cfg(test)]
mod tests {
    use super::super::{BindingRecord, Sent};
    use super::*;
    use crate::routing::ids::PromptId;
    use crate::routing::owners::Person;

    fn client(text: &str) -> ClientId {
        ClientId::parse(text).unwrap()
    }

    fn prompt(name: &str, of: &str, person: Option<&Person>) -> (PromptId, PromptRecord) {
        let sent = Sent { backend: "a".into(), url: "h:1".into(), made: 1, order: 1 };
        let record = PromptRecord::new(&client(of), sent, Vec::new()).of(person);
        (PromptId::parse(name).unwrap(), record)
    }

    fn binding(since: u64) -> BindingRecord {
        BindingRecord::new("a", "h:1", since, None)
    }

    const BOBS: &str = "\u{1}bob\u{1}tab";

    #[test]
    fn what_is_nobodys_becomes_the_users_and_what_is_anothers_stays() {
        let browser = Person::Browser(7);
        let saved = Saved {
            clients: vec![(client("tab"), binding(1)), (client(BOBS), binding(2))],
            prompts: vec![
                prompt("old", "tab", Some(&browser)),
                prompt("bobs", BOBS, Some(&Person::of_account("bob"))),
            ],
            ..Saved::default()
        };
        let user = Arc::from("ada");
        let batch = saved.adoption(&user);
        let after = saved.clone().after(&batch);
        let hers = client("\u{1}ada\u{1}tab");
        assert_eq!(hers.user(), Some("ada"));
        assert!(after.clients.contains(&(hers.clone(), binding(1))));
        assert!(after.clients.contains(&(client(BOBS), binding(2))));
        assert_eq!(after.clients.len(), 2);
        let find = |name: &str| after.prompts.iter().find(|it| it.0.as_str() == name).unwrap();
        assert_eq!(find("old").1.client, hers.to_string());
        assert_eq!(find("old").1.person(), Some(Person::of_account("ada")));
        assert_eq!(find("bobs").1, saved.prompts[1].1);
        assert!(after.adoption(&user).is_empty(), "there is nothing left to give");
    }

    #[test]
    fn a_client_that_the_user_has_already_stays_as_it_is() {
        let hers = client("\u{1}ada\u{1}tab");
        let clients = vec![(client("tab"), binding(1)), (hers.clone(), binding(2))];
        let saved = Saved { clients, ..Saved::default() };
        let after = saved.clone().after(&saved.adoption(&Arc::from("ada")));
        assert_eq!(after.clients, [(hers, binding(2))]);
    }

    #[test]
    fn makers_that_may_be_users_stay() {
        let realm = Realm::User("ada".into());
        let others = [
            MakerRecord::Browser(format!("{:032x}", 7)),
            MakerRecord::User("bob".into()),
            MakerRecord::Client(BOBS.to_owned()),
        ];
        assert_eq!(adopted(&others, &realm), None);
        let mut makers = others.to_vec();
        makers.push(MakerRecord::Client("tab".to_owned()));
        let now = adopted(&makers, &realm).unwrap();
        assert_eq!(now[..3], others);
        assert_eq!(now[3], MakerRecord::Client("\u{1}ada\u{1}tab".to_owned()));
    }
}
