//! Several lists as one, when the program is compiled.

/// How many entries these lists have together.
pub(super) const fn total<T>(lists: [&[T]; 5]) -> usize {
    lists[0].len() + lists[1].len() + lists[2].len() + lists[3].len() + lists[4].len()
}

/// These lists as one.
pub(super) const fn joined<const N: usize, T: Copy>(lists: [&[T]; 5]) -> [T; N] {
    let (mut all, mut at, mut list, mut index) = ([lists[0][0]; N], 0, 0, 0);
    while at < N {
        if index == lists[list].len() {
            (list, index) = (list + 1, 0);
        }
        all[at] = lists[list][index];
        (at, index) = (at + 1, index + 1);
    }
    all
}
