//! Macros that generate code from the table of keys: the sections as they are written, and
//! [`KEYS`].
//!
//! [`KEYS`]: super::keys::KEYS

/// Whether two configurations have different values of one key.
macro_rules! differs {
    // Named tables are compared as a whole.
    (backend $name:ident $applied:ident) => {
        |_, _| false
    };
    (discovery $name:ident $applied:ident) => {
        |_, _| false
    };
    // These stand within those of `auth`.
    (auth_jwt keys_file $applied:ident) => {
        |old, new| {
            let (old, new) = (&old.auth.jwt, &new.auth.jwt);
            (&old.keys_file, &old.keys) != (&new.keys_file, &new.keys)
        }
    };
    (auth_jwt $name:ident $applied:ident) => {
        |old, new| old.auth.jwt.$name != new.auth.jwt.$name
    };
    (state seal_key_file $applied:ident) => {
        |old, new| {
            let (old, new) = (&old.state, &new.state);
            (&old.seal_key_file, &old.seal_keys) != (&new.seal_key_file, &new.seal_keys)
        }
    };
    ($section:ident $name:ident ByValue) => {
        |_, _| false
    };
    ($section:ident $name:ident $applied:ident) => {
        |old, new| old.$section.$name != new.$section.$name
    };
}

macro_rules! sections {
    ($sections:ident, $keys:ident: $(
        #[doc = $about:literal]
        [$section:literal] $raw:ident $with:ident {
            $(
                $(#[doc = $why:literal])+
                $name:ident: $kind:ident $({ $($limit:ident: $value:expr),+ })? = $default:literal,
                    $applied:ident;
            )+
        }
    )+) => {
        /// The sections with their descriptions, in the order of the documentation.
        pub(in crate::config) const $sections: &[(&str, &str)] = &[$(($section, $about)),+];

        /// Their keys, in the order of the documentation.
        pub(in crate::config) const $keys: &[Key] = &[$($(
            Key {
                section: $section,
                name: stringify!($name),
                default: $default,
                shape: <$kind as Kind>::SHAPE,
                applied: Applied::$applied,
                differs: differs!($with $name $applied),
                why: concat!($($why),+),
                is_secret: <$kind as Kind>::IS_SECRET,
                schema: || Kind::schema(&$kind $({ $($limit: $value),+ })?),
                takes: || Kind::takes(&$kind $({ $($limit: $value),+ })?),
            },
        )+)+];

        $(
            #[derive(Debug)]
            pub(in crate::config) struct $raw {
                $($(#[doc = $why])+ pub(in crate::config) $name: Setting<$kind>,)+
            }

            /// Takes its keys out of what was written; `prefix` begins their full names.
            pub(in crate::config) fn $with(prefix: &str, section: &mut Section) -> $raw {
                $raw {
                    $($name: Setting {
                        key: format!("{prefix}.{}", stringify!($name)),
                        kind: $kind $({ $($limit: $value),+ })?,
                        default: $default,
                        written: section.remove(&format!("{prefix}.{}", stringify!($name))),
                    },)+
                }
            }
        )+
    };
}
