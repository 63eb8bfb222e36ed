//! Pages: how many items, and where to go on.

use data_encoding::BASE64URL_NOPAD;
use murmur_core::limits::{PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX};
use sha2::{Digest, Sha256};

use crate::invalid::Invalid;

/// Of a list's name, at the head of its tokens, so that no other list takes them for a place of its own.
const MARK_BYTES: usize = 4;

/// A token that no page before had.
pub(crate) fn broken() -> Invalid {
    Invalid::new("page_token", "must come from the page before")
}

/// A wanted page.
#[derive(Debug)]
pub(crate) struct Page {
    /// The last key of the page before; empty for the first.
    pub(crate) after: Vec<u8>,
    /// Items at most.
    pub(crate) size: u32,
    mark: [u8; MARK_BYTES],
}

impl Page {
    /// Of the list of this name; one that can be read in another order has another name for that.
    pub(crate) fn new(list: &str, size: u32, token: &str) -> Result<Self, Invalid> {
        Self::of(list, size, token, PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)
    }

    /// With sizes of its own.
    pub(crate) fn of(list: &str, size: u32, token: &str, size_default: u32, size_max: u32) -> Result<Self, Invalid> {
        let mark = mark(list);
        let token = BASE64URL_NOPAD.decode(token.as_bytes()).map_err(|_| broken())?;
        let after = if token.is_empty() { token } else { token.strip_prefix(&mark).ok_or_else(broken)?.to_vec() };
        if size > size_max {
            return Err(Invalid::new("page_size", format!("must be at most {size_max}, got {size}")));
        }
        Ok(Self { after, size: if size == 0 { size_default } else { size }, mark })
    }

    /// The number that the page before ended with; 0 for the first.
    pub(crate) fn after_number(&self) -> Result<u64, Invalid> {
        if self.after.is_empty() {
            return Ok(0);
        }
        let bytes = self.after.as_slice().try_into();
        bytes.map(u64::from_be_bytes).map_err(|_| broken())
    }

    /// One more than the page holds, to see whether another follows.
    pub(crate) const fn limit(&self) -> u32 {
        self.size + 1
    }

    /// Cuts what was read with [`Page::limit`] to the page, and makes the token of the next one.
    pub(crate) fn cut<T>(&self, mut items: Vec<T>, key: impl Fn(&T) -> Vec<u8>) -> (Vec<T>, String) {
        let more = items.len() > self.size as usize;
        items.truncate(self.size as usize);
        let token = |last: &T| BASE64URL_NOPAD.encode(&[self.mark.as_slice(), &key(last)].concat());
        let next = items.last().filter(|_| more).map(token);
        (items, next.unwrap_or_default())
    }

    /// As [`Page::cut`], and to so many bytes; the first item always goes.
    pub(crate) fn cut_to<T>(
        &self,
        items: Vec<T>,
        key: impl Fn(&T) -> Vec<u8>,
        bytes_of: impl Fn(&T) -> usize,
        bytes_max: usize,
    ) -> (Vec<T>, String) {
        let mut bytes = 0_usize;
        let fit = items.iter().take_while(|item| {
            bytes = bytes.saturating_add(bytes_of(item));
            bytes <= bytes_max
        });
        let fit = u32::try_from(fit.count().max(1)).unwrap_or(u32::MAX);
        Self { after: Vec::new(), size: self.size.min(fit), mark: self.mark }.cut(items, key)
    }
}

fn mark(list: &str) -> [u8; MARK_BYTES] {
    let digest: [u8; 32] = Sha256::digest(list).into();
    std::array::from_fn(|at| digest[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_page_has_no_successor() {
        let page = Page::new("x", 2, "").unwrap();
        let (items, next) = page.cut(vec![1, 2, 3], |item| vec![*item]);
        assert_eq!(items, [1, 2]);
        let page = Page::new("x", 2, &next).unwrap();
        assert_eq!(page.after, [2]);
        assert_eq!(page.cut(vec![3], |item| vec![*item]), (vec![3], String::new()));
    }

    #[test]
    fn a_page_is_cut_to_its_bytes_and_never_empty() {
        let page = Page::new("x", 10, "").unwrap();
        let cut = |items: Vec<usize>| page.cut_to(items, |item| vec![u8::try_from(*item).unwrap()], |item| *item, 10).0;
        assert_eq!(cut(vec![4, 6, 1]), [4, 6]);
        assert_eq!(cut(vec![11, 1]), [11]);
        assert_eq!(cut(vec![]), [0; 0]);
    }

    #[test]
    fn foreign_tokens_and_sizes_are_refused() {
        assert_eq!(Page::new("x", 1001, "").unwrap_err().field, "page_size");
        assert_eq!(Page::new("x", 1, "?").unwrap_err().field, "page_token");
    }

    #[test]
    fn a_token_is_good_for_its_own_list_alone() {
        let next = |list| Page::new(list, 1, "").unwrap().cut(vec![1, 2], |item| vec![*item]).1;
        let page = |token: &str| Page::new("ListNodes", 1, token);
        assert_eq!(page(&next("ListNodes")).unwrap().after, [1]);
        let bare = BASE64URL_NOPAD.encode(&[1]);
        for foreign in [next("ListTokens"), bare, "eHh4".to_owned(), "?".to_owned()] {
            assert_eq!(page(&foreign).unwrap_err(), broken(), "{foreign}");
        }
        assert_eq!(page("").unwrap().after, [0; 0]);
    }
}
