//! Pages: how many items, and where to go on.

use data_encoding::BASE64URL_NOPAD;
use murmur_core::limits::{PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX};

use crate::invalid::Invalid;

/// A wanted page.
#[derive(Debug)]
pub(crate) struct Page {
    /// The last key of the page before; empty for the first.
    pub(crate) after: Vec<u8>,
    /// Items at most.
    pub(crate) size: u32,
}

impl Page {
    pub(crate) fn new(size: u32, token: &str) -> Result<Self, Invalid> {
        if size > PAGE_SIZE_MAX {
            return Err(Invalid::new("page_size", format!("must be at most {PAGE_SIZE_MAX}, got {size}")));
        }
        let after = BASE64URL_NOPAD
            .decode(token.as_bytes())
            .map_err(|_| Invalid::new("page_token", "must come from the page before"))?;
        Ok(Self { after, size: if size == 0 { PAGE_SIZE_DEFAULT } else { size } })
    }

    /// One more than the page holds, to see whether another follows.
    pub(crate) const fn limit(&self) -> u32 {
        self.size + 1
    }

    /// Cuts what was read with [`Page::limit`] to the page, and makes the token of the next one.
    pub(crate) fn cut<T>(&self, mut items: Vec<T>, key: impl Fn(&T) -> Vec<u8>) -> (Vec<T>, String) {
        let more = items.len() > self.size as usize;
        items.truncate(self.size as usize);
        let next = items.last().filter(|_| more).map(|last| BASE64URL_NOPAD.encode(&key(last)));
        (items, next.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_page_has_no_successor() {
        let page = Page::new(2, "").unwrap();
        let (items, next) = page.cut(vec![1, 2, 3], |item| vec![*item]);
        assert_eq!(items, [1, 2]);
        let page = Page::new(2, &next).unwrap();
        assert_eq!(page.after, [2]);
        assert_eq!(page.cut(vec![3], |item| vec![*item]), (vec![3], String::new()));
    }

    #[test]
    fn foreign_tokens_and_sizes_are_refused() {
        assert_eq!(Page::new(1001, "").unwrap_err().field, "page_size");
        assert_eq!(Page::new(1, "?").unwrap_err().field, "page_token");
    }
}
