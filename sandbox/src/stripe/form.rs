//! `application/x-www-form-urlencoded` with nested brackets, the way Stripe takes parameters: `a[b]=1`, `a[0][b]=1`,
//! `a[]=1`. <https://docs.stripe.com/api#making-requests>

use serde_json::{Map, Value};

use super::error::{Answer, StripeError};

/// Deeper than any parameter goes.
const DEEPEST: usize = 8;

/// Every parameter, texts in maps. Elements of arrays are members with the index as their name.
pub(super) fn parse(form: &str) -> Answer<Map<String, Value>> {
    let mut root = Map::new();
    for pair in form.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decode(name)?, decode(value)?);
        let path = path(&name)?;
        insert(&mut root, &path, &name, value)?;
    }
    Ok(root)
}

fn decode(text: &str) -> Answer<String> {
    let malformed = || {
        StripeError::invalid(
            "Invalid form encoding: a % must be followed by two hexadecimal digits, and the text must be UTF-8",
        )
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                let (digits, after) = rest.split_at_checked(2).ok_or_else(malformed)?;
                let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                let [high, low] = [digit(digits[0]), digit(digits[1])];
                bytes.push(high.ok_or_else(malformed)? * 16 + low.ok_or_else(malformed)?);
                rest = after;
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| malformed())
}

fn path(name: &str) -> Answer<Vec<&str>> {
    let malformed = || StripeError::invalid(format!("Invalid parameter name: {name}")).param(name);
    let (first, mut rest) = name.split_at(name.find('[').unwrap_or(name.len()));
    if first.is_empty() {
        return Err(malformed());
    }
    let mut path = vec![first];
    while !rest.is_empty() {
        let inner = rest.strip_prefix('[').ok_or_else(malformed)?;
        let (segment, after) = inner.split_once(']').ok_or_else(malformed)?;
        if segment.contains('[') || path.len() == DEEPEST {
            return Err(malformed());
        }
        path.push(segment);
        rest = after;
    }
    Ok(path)
}

fn insert(map: &mut Map<String, Value>, path: &[&str], name: &str, value: String) -> Answer<()> {
    let conflict =
        || StripeError::invalid(format!("Parameter {name} is given both as a value and as a group")).param(name);
    let Some((first, rest)) = path.split_first() else { return Ok(()) };
    // `a[]=x`: the next of the array.
    let key = if first.is_empty() { map.len().to_string() } else { (*first).to_owned() };
    if rest.is_empty() {
        if map.get(&key).is_some_and(Value::is_object) {
            return Err(conflict());
        }
        map.insert(key, Value::String(value));
        return Ok(());
    }
    let inner = map.entry(key).or_insert_with(|| Value::Object(Map::new()));
    insert(inner.as_object_mut().ok_or_else(conflict)?, rest, name, value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn brackets_nest_and_percent_signs_decode() {
        let form = "a=1&b[c]=x%20y+z&line_items[0][price]=p&line_items%5B1%5D%5Bprice%5D=q&expand[]=e&expand[]=f&g";
        let parsed = json!({
            "a": "1",
            "b": {"c": "x y z"},
            "line_items": {"0": {"price": "p"}, "1": {"price": "q"}},
            "expand": {"0": "e", "1": "f"},
            "g": "",
        });
        assert_eq!(Value::Object(parse(form).unwrap()), parsed);
    }

    #[test]
    fn malformed_names_and_values_are_refused() {
        for form in ["a=%4", "a=%zz", "a=%ff", "[a]=1", "a[b=1", "a[b]c=1", "a=1&a[b]=1", "a[b]=1&a=1", "a[[b]]=1"] {
            assert!(parse(form).is_err(), "{form} was taken");
        }
        assert!(parse(&format!("a{}=1", "[b]".repeat(9))).is_err());
    }
}
