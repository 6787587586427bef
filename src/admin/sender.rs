//! Who sends a request to the admin listener.

use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;

use crate::audit::Who;
use crate::auth::User;

/// Who sends a request, as far as it is known. It is an extension of the request.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    pub(super) address: IpAddr,
    /// The operator, if a key or the like of his own let him in.
    pub(super) user: Option<Arc<User>>,
}

impl Sender {
    /// For the audit log.
    pub(super) fn who(&self) -> Who {
        match &self.user {
            Some(user) => Who::user(user.name.as_str(), user.role.as_str(), self.address),
            None => Who::at(self.address),
        }
    }

    /// The name that is kept with what he changes. `by` is the name that the request gives, which
    /// nothing proves.
    pub(super) fn name(&self, by: Option<impl Display>) -> String {
        let address = self.address;
        match (by, &self.user) {
            (Some(by), Some(user)) => format!("{by} ({}, {address})", user.name),
            (Some(by), None) => format!("{by} ({address})"),
            (None, Some(user)) => format!("{} ({address})", user.name),
            (None, None) => address.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Role;

    #[test]
    fn a_name_that_nothing_proves_never_stands_alone() {
        let address = IpAddr::from([10, 0, 0, 1]);
        let name = "ada".parse().unwrap();
        let role = Role::Operator;
        let ada = User { name, role, generation: 1, key: None, password: None };
        let nobody = Sender { address, user: None };
        let ada = Sender { address, user: Some(Arc::new(ada)) };
        assert_eq!(nobody.name(None::<&str>), "10.0.0.1");
        assert_eq!(nobody.name(Some("bob")), "bob (10.0.0.1)");
        assert_eq!(ada.name(None::<&str>), "ada (10.0.0.1)");
        assert_eq!(ada.name(Some("bob")), "bob (ada, 10.0.0.1)");
    }
}
