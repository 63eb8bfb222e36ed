//! A reader and writer of protobuf that shares nothing with the generated code: a second opinion in sixty lines.

/// A field's value as it stands on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Number(u64),
    Bytes(Vec<u8>),
    /// A fixed-width number, which no message here has.
    Other,
}

/// The fields of a message in the order in which they stand.
pub(super) type Fields = Vec<(u64, Value)>;

/// Takes a message apart; `None` for groups and for what is cut short.
pub(super) fn read(mut bytes: &[u8]) -> Option<Fields> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let value = match key & 7 {
            0 => Value::Number(varint(&mut bytes)?),
            1 => take(&mut bytes, 8).map(|_| Value::Other)?,
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                Value::Bytes(take(&mut bytes, length)?.to_vec())
            }
            5 => take(&mut bytes, 4).map(|_| Value::Other)?,
            _ => return None,
        };
        fields.push((key >> 3, value));
    }
    Some(fields)
}

/// The last value of a byte field; empty when it is absent.
pub(super) fn bytes(fields: &Fields, number: u64) -> Vec<u8> {
    let last = fields.iter().rev().find_map(|(field, value)| match value {
        Value::Bytes(bytes) if *field == number => Some(bytes.clone()),
        _ => None,
    });
    last.unwrap_or_default()
}

/// The last value of a number field; 0 when it is absent.
pub(super) fn number(fields: &Fields, number: u64) -> u64 {
    let last = fields.iter().rev().find_map(|(field, value)| match value {
        Value::Number(value) if *field == number => Some(*value),
        _ => None,
    });
    last.unwrap_or_default()
}

/// How often a byte field stands there.
pub(super) fn count(fields: &Fields, number: u64) -> usize {
    fields.iter().filter(|(field, value)| *field == number && matches!(value, Value::Bytes(_))).count()
}

/// Writes fields; a number of 0 and empty bytes are left out, as senders do.
pub(super) fn write(fields: &[(u64, Value)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, value) in fields {
        match value {
            Value::Number(value) if *value != 0 => {
                put_varint(&mut out, number << 3);
                put_varint(&mut out, *value);
            }
            Value::Bytes(bytes) if !bytes.is_empty() => {
                put_varint(&mut out, number << 3 | 2);
                put_varint(&mut out, bytes.len() as u64);
                out.extend(bytes);
            }
            _ => {}
        }
    }
    out
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}
