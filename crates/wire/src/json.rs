//! JSON as senders may really write it: a field of the wrong type does not hide which field it is.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::error::{ParseError, excerpt};

/// A field that should hold a text. Borrowed from the body wherever nothing is escaped in it.
#[derive(Clone, Debug, Default)]
pub(crate) enum Text<'a> {
    /// Not there, or null.
    #[default]
    Absent,
    /// What it holds.
    Is(Cow<'a, str>),
    /// It holds something else.
    Not(&'static str),
}

/// A field that should hold an object.
#[derive(Debug, Default)]
pub(crate) enum Object<T> {
    /// Not there.
    #[default]
    Absent,
    /// What it holds.
    Is(T),
    /// It holds something else.
    Not(&'static str),
}

impl Text<'_> {
    /// The text, where there is one and it is not empty.
    pub(crate) fn get(&self) -> Option<&str> {
        match self {
            Self::Is(text) if !text.is_empty() => Some(text),
            Self::Is(_) | Self::Absent | Self::Not(_) => None,
        }
    }

    /// Whether the field is there, whatever it holds.
    pub(crate) fn is_there(&self) -> bool {
        !matches!(self, Self::Absent)
    }

    /// What is there, for an error text.
    pub(crate) fn found(&self) -> String {
        match self {
            Self::Absent => "missing".to_owned(),
            Self::Is(text) if text.is_empty() => "empty".to_owned(),
            Self::Is(text) => format!("`{}`", excerpt(text)),
            Self::Not(kind) => (*kind).to_owned(),
        }
    }
}

/// Reads the object that `body` is. What `T` does not name is skipped without being stored, however
/// deep it goes.
pub(crate) fn read<'a, T: Deserialize<'a>>(body: &'a str) -> Result<T, ParseError> {
    match serde_json::from_str(body) {
        Ok(Object::Is(content)) => Ok(content),
        Ok(Object::Not(found)) => Err(ParseError::NotAnObject { found }),
        Ok(Object::Absent) => Err(ParseError::NotAnObject { found: NULL }),
        // The texts of serde_json are its own and short: no value is shown, because `Text` and `Object`
        // take every type.
        Err(error) => Err(ParseError::NotJson { reason: error.to_string(), begins: excerpt(body) }),
    }
}

const NULL: &str = "null";

/// What both visitors answer to what they did not expect.
macro_rules! other_kinds {
    ($not:path) => {
        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            Ok($not("true or false"))
        }

        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            Ok($not("a number"))
        }

        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
            Ok($not("a number"))
        }

        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            Ok($not("a number"))
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            Ok($not("an array"))
        }
    };
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Text::Is(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Text::Is(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Text::Absent)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Text::Not("an object"))
    }

    other_kinds!(Text::Not);
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Object::Not("a text"))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Object::Not(NULL))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object::Is)
    }

    other_kinds!(Object::Not);
}
