//! Words of the contract on the command line: listed in the help and completed by shells, taken in any spelling.

use std::{ffi::OsStr, marker::PhantomData};

use clap::{
    Arg, Command,
    builder::{PossibleValue, TypedValueParser},
    error::{ContextKind, ContextValue, ErrorKind},
};
use murmur_proto::words::Words;

/// Reads a value of an enumeration of the contract.
#[derive(Debug)]
pub(crate) struct Word<T>(PhantomData<T>);

/// A parser for `#[arg(value_parser = word())]`.
pub(crate) const fn word<T>() -> Word<T> {
    Word(PhantomData)
}

/// The number that a request carries; 0 for none.
pub(crate) fn number<T: Words + Into<i32>>(value: Option<T>) -> i32 {
    value.map_or(0, Into::into)
}

impl<T> Clone for Word<T> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

impl<T: Words> TypedValueParser for Word<T> {
    type Value = T;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<T, clap::Error> {
        let text = value.to_string_lossy();
        T::from_word(&text).ok_or_else(|| {
            let mut error = clap::Error::new(ErrorKind::InvalidValue).with_cmd(command);
            if let Some(arg) = arg {
                error.insert(ContextKind::InvalidArg, ContextValue::String(arg.to_string()));
            }
            error.insert(ContextKind::InvalidValue, ContextValue::String(text.into_owned()));
            let words = T::WORDS.iter().map(|(_, word)| (*word).to_owned()).collect();
            error.insert(ContextKind::ValidValue, ContextValue::Strings(words));
            error
        })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(T::WORDS.iter().map(|(_, word)| PossibleValue::new(*word))))
    }
}
