//! The file that says which copies are in doubt, for a process that starts after a crash. Pure.
//!
//! It names the groups that are being written, and those whose copies are not deleted yet. It is
//! overwritten in place and always has the same size. That also works on a full disk, and in a
//! folder where nothing can be deleted.

use std::collections::BTreeSet;

use crate::front::cookie_signer::CookieSigner;

/// Its name in the folder of the copies.
pub(super) const FILE: &str = "doubts";

/// The beginning of the file, with the version of the format.
const MAGIC: &[u8] = b"MOORING DOUBT 1\n";

/// Its size, in bytes.
pub(super) const SIZE: usize = 8 << 10;

const CODE: usize = 32;

/// How many groups the file can name.
const GROUPS_MAX: usize = (SIZE - MAGIC.len() - CODE - size_of::<u32>()) / size_of::<u64>();

/// The groups whose copies are in doubt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Doubts {
    Of(BTreeSet<u64>),
    /// There are more than the file can name, or the content is unknown.
    All,
}

impl Doubts {
    /// These groups, or all if there are too many.
    pub(super) fn of(groups: BTreeSet<u64>) -> Self {
        if groups.len() <= GROUPS_MAX { Self::Of(groups) } else { Self::All }
    }

    pub(super) fn has(&self, group: u64) -> bool {
        match self {
            Self::Of(groups) => groups.contains(&group),
            Self::All => true,
        }
    }

    /// The groups in both. While one text is overwritten by the other, these are certainly in the
    /// file.
    pub(super) fn and(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::All, it) | (it, Self::All) => it.clone(),
            (Self::Of(one), Self::Of(other)) => Self::Of(one & other),
        }
    }

    /// The groups in either. While one text is overwritten by the other, only these can be in the
    /// file.
    pub(super) fn or(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => Self::All,
            (Self::Of(one), Self::Of(other)) => Self::Of(one | other),
        }
    }

    pub(super) fn encode(&self, signer: &CookieSigner) -> Vec<u8> {
        let (count, groups): (u32, Vec<u64>) = match self {
            Self::Of(groups) => {
                (u32::try_from(groups.len()).unwrap_or(u32::MAX), groups.iter().copied().collect())
            }
            Self::All => (u32::MAX, Vec::new()),
        };
        let mut said = count.to_be_bytes().to_vec();
        groups.iter().for_each(|group| said.extend_from_slice(&group.to_be_bytes()));
        let code = signer.digest(&[b"doubts", &said]);
        let mut file = [MAGIC, &code, &said].concat();
        file.resize(SIZE, 0);
        file
    }

    /// Reads a file. If it is damaged or not ours, all copies are in doubt.
    pub(super) fn decode(signer: &CookieSigner, file: &[u8]) -> Self {
        Self::read(signer, file).unwrap_or(Self::All)
    }

    fn read(signer: &CookieSigner, file: &[u8]) -> Option<Self> {
        let (code, rest) = file.strip_prefix(MAGIC)?.split_at_checked(CODE)?;
        let count = u32::from_be_bytes(*rest.first_chunk()?);
        let named = if count == u32::MAX { 0 } else { usize::try_from(count).ok()? };
        let said = rest.get(..named.checked_mul(size_of::<u64>())? + size_of::<u32>())?;
        if signer.digest(&[b"doubts", said])[..] != *code {
            return None;
        }
        if count == u32::MAX {
            return Some(Self::All);
        }
        let groups = said[size_of::<u32>()..].as_chunks().0.iter();
        Some(Self::Of(groups.map(|group| u64::from_be_bytes(*group)).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubts_are_read_as_they_were_written_and_a_damaged_file_doubts_all() {
        let signer = CookieSigner::new();
        let full = Doubts::of((0..GROUPS_MAX as u64).collect());
        for doubts in [Doubts::of(BTreeSet::new()), Doubts::of([7, u64::MAX].into()), full] {
            let file = doubts.encode(&signer);
            assert_eq!((file.len(), Doubts::decode(&signer, &file)), (SIZE, doubts.clone()));
            assert_ne!(doubts, Doubts::All);
        }
        let all = Doubts::of((0..=GROUPS_MAX as u64).collect());
        assert_eq!(all, Doubts::All);
        assert_eq!(Doubts::decode(&signer, &all.encode(&signer)), Doubts::All);
        let file = Doubts::of([7].into()).encode(&signer);
        assert_eq!(Doubts::decode(&CookieSigner::new(), &file), Doubts::All);
        for at in 0..MAGIC.len() + CODE + 12 {
            let mut bad = file.clone();
            bad[at] ^= 1;
            assert_eq!(Doubts::decode(&signer, &bad), Doubts::All, "byte {at}");
            assert_eq!(Doubts::decode(&signer, &file[..at]), Doubts::All, "{at} bytes");
        }
    }

    #[test]
    fn while_one_is_written_over_another_only_what_both_have_is_sure() {
        let of = |groups: &[u64]| Doubts::of(groups.iter().copied().collect());
        assert_eq!(of(&[1, 2]).and(&of(&[2, 3])), of(&[2]));
        assert_eq!(Doubts::All.and(&of(&[2])), of(&[2]));
        assert_eq!(of(&[2]).and(&Doubts::All), of(&[2]));
        assert!(Doubts::All.has(9) && !of(&[2]).has(9));
        assert_eq!(of(&[1, 2]).or(&of(&[2, 3])), of(&[1, 2, 3]));
        assert_eq!(
            [Doubts::All.or(&of(&[2])), of(&[2]).or(&Doubts::All)],
            [Doubts::All, Doubts::All]
        );
    }
}
