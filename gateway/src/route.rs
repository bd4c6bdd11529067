//! Event routes: which action a client event stands for, and the expressions
//! that pick rooms and data from its arguments. Pure.

use crate::envelope::Envelope;
use bytes::Bytes;
use contract::config::{Mistake, Route};
use serde_json::value::RawValue;
use std::collections::HashMap;

/// Event that members receive when a publish route names none.
const DEFAULT_EVENT: &str = "message";

/// The compiled routes of a configuration.
#[derive(Debug, Default)]
pub struct Routes {
    by_event: HashMap<String, Action>,
}

/// What an event does.
#[derive(Debug)]
pub enum Action {
    /// Join the room that the expression gives.
    Join(Expression),
    /// Leave it.
    Leave(Expression),
    /// Publish to it.
    Publish {
        /// Gives the room.
        room: Expression,
        /// Event the members receive.
        event: String,
        /// Gives the one argument they receive; none = all arguments.
        data: Option<Expression>,
    },
    /// Acknowledge with the event's own arguments.
    Echo,
}

impl Routes {
    /// Compiles the routes, reporting every bad expression at once.
    ///
    /// # Errors
    /// All [`Mistake`]s in the expressions.
    pub fn compile(routes: &[Route]) -> Result<Self, Vec<Mistake>> {
        let mut by_event = HashMap::new();
        let mut mistakes = Vec::new();
        for (index, route) in routes.iter().enumerate() {
            let mut expression = |field: &str, text: &str| match Expression::parse(text) {
                Some(expression) => expression,
                None => {
                    mistakes.push(Mistake {
                        field: format!("routes[{index}].{field}"),
                        message: format!(
                            "{text:?} is no expression: write $[0], $.field, $[1].a.b, alternatives separated by ||"
                        ),
                    });
                    Expression::default()
                }
            };
            let action = if let Some(join) = &route.join {
                Action::Join(expression("join.room", &join.room))
            } else if let Some(leave) = &route.leave {
                Action::Leave(expression("leave.room", &leave.room))
            } else if let Some(publish) = &route.publish {
                Action::Publish {
                    room: expression("publish.room", &publish.room),
                    event: publish.event.clone().unwrap_or_else(|| DEFAULT_EVENT.into()),
                    data: publish.data.as_ref().map(|text| expression("publish.data", text)),
                }
            } else {
                Action::Echo
            };
            by_event.insert(route.event.clone(), action);
        }
        if mistakes.is_empty() { Ok(Self { by_event }) } else { Err(mistakes) }
    }

    /// The action of an event.
    #[must_use]
    pub fn get(&self, event: &str) -> Option<&Action> {
        self.by_event.get(event)
    }
}

/// Alternatives of paths into the arguments; the first that exists wins.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expression(Vec<Path>);

#[derive(Debug, PartialEq, Eq)]
struct Path {
    argument: usize,
    fields: Vec<String>,
}

impl Expression {
    fn parse(text: &str) -> Option<Self> {
        text.split("||").map(|part| Path::parse(part.trim())).collect::<Option<_>>().map(Self)
    }

    /// The JSON it picks, as original bytes.
    #[must_use]
    pub fn pick<'a>(&self, args: &[&'a RawValue]) -> Option<&'a RawValue> {
        self.0.iter().find_map(|path| path.pick(args))
    }

    /// The text it picks: the first alternative that is a string or a number.
    #[must_use]
    pub fn pick_text(&self, args: &[&RawValue]) -> Option<String> {
        self.0.iter().filter_map(|path| path.pick(args)).find_map(|raw| {
            match raw.get().as_bytes().first()? {
                b'"' => serde_json::from_str(raw.get()).ok(),
                b'-' | b'0'..=b'9' => Some(raw.get().to_owned()),
                _ => None,
            }
        })
    }
}

impl Path {
    fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix('$')?;
        let (argument, rest) = match rest.strip_prefix('[') {
            Some(indexed) => {
                let (digits, rest) = indexed.split_once(']')?;
                (digits.parse().ok().filter(|index| *index < 64)?, rest)
            }
            None if rest.is_empty() => return None,
            None => (0, rest),
        };
        let mut fields = Vec::new();
        if !rest.is_empty() {
            for field in rest.strip_prefix('.')?.split('.') {
                if field.is_empty() || field.contains(['[', ']', '$', ' ']) {
                    return None;
                }
                fields.push(field.to_owned());
            }
        }
        Some(Self { argument, fields })
    }

    fn pick<'a>(&self, args: &[&'a RawValue]) -> Option<&'a RawValue> {
        let mut value = *args.get(self.argument)?;
        for field in &self.fields {
            let object: HashMap<String, &'a RawValue> = serde_json::from_str(value.get()).ok()?;
            value = object.get(field.as_str()).copied()?;
        }
        Some(value)
    }
}

/// The envelope of a publish: the event's name, then the picked data or all arguments.
///
/// Attachments that the picked data does not refer to are left out, and the
/// placeholders of the others are numbered anew.
#[must_use]
pub fn envelope(
    event: &str,
    data: Option<&Expression>,
    args: &[&RawValue],
    attachments: &[Bytes],
) -> Option<Envelope> {
    let picked: Vec<&RawValue> = match data {
        Some(expression) => vec![expression.pick(args)?],
        None => args.to_vec(),
    };
    let mut text = String::from("[");
    text.push_str(&serde_json::Value::from(event).to_string());
    let mut used = Vec::new();
    for value in picked {
        text.push(',');
        if attachments.is_empty() {
            text.push_str(value.get());
        } else {
            let mut value: serde_json::Value = serde_json::from_str(value.get()).ok()?;
            renumber(&mut value, attachments, &mut used)?;
            text.push_str(&value.to_string());
        }
    }
    text.push(']');
    Some(Envelope { args: text.into(), attachments: used })
}

/// Numbers placeholders in the order they are met; `None` when one points nowhere.
fn renumber(
    value: &mut serde_json::Value,
    attachments: &[Bytes],
    used: &mut Vec<Bytes>,
) -> Option<()> {
    match value {
        serde_json::Value::Array(items) => {
            items.iter_mut().try_for_each(|item| renumber(item, attachments, used))
        }
        serde_json::Value::Object(fields) => {
            if fields.get("_placeholder") == Some(&serde_json::Value::Bool(true)) {
                let index = usize::try_from(fields.get("num")?.as_u64()?).ok()?;
                let attachment = attachments.get(index)?.clone();
                fields.insert("num".into(), used.len().into());
                used.push(attachment);
                return Some(());
            }
            fields.values_mut().try_for_each(|item| renumber(item, attachments, used))
        }
        _ => Some(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::socketio::Event;
    use contract::config::GatewayConfig;

    fn publish(data: &str, attachments: &[Bytes]) -> Option<(String, Envelope)> {
        let routes = Routes::compile(&GatewayConfig::development().routes).unwrap();
        let event = Event::parse(data).unwrap();
        let Some(Action::Publish { room, event: name, data }) = routes.get(&event.name) else {
            return None;
        };
        let room = room.pick_text(&event.args)?;
        Some((room, envelope(name, data.as_ref(), &event.args, attachments)?))
    }

    #[test]
    fn both_forms_of_send_message_are_understood_and_unchanged() {
        let (room, sent) = publish(r#"["sendMessage","r1",{"b": 1,"a":2}]"#, &[]).unwrap();
        assert_eq!((room.as_str(), sent.args.as_str()), ("r1", r#"["message",{"b": 1,"a":2}]"#));
        let (room, sent) = publish(r#"["sendMessage",{"roomId":"r2","text":"x"}]"#, &[]).unwrap();
        assert_eq!(
            (room.as_str(), sent.args.as_str()),
            ("r2", r#"["message",{"roomId":"r2","text":"x"}]"#)
        );
        assert_eq!(publish(r#"["sendMessage",{"text":"x"}]"#, &[]), None);
    }

    #[test]
    fn attachments_follow_the_data_that_is_picked() {
        let files = [Bytes::from_static(b"a"), Bytes::from_static(b"b")];
        let text = r#"["sendMessage","r",{"z":{"_placeholder":true,"num":1}},{"_placeholder":true,"num":0}]"#;
        let (_, sent) = publish(text, &files).unwrap();
        assert_eq!(sent.args.as_str(), r#"["message",{"z":{"_placeholder":true,"num":0}}]"#);
        assert_eq!(sent.attachments, [Bytes::from_static(b"b")]);
        let nowhere = r#"["sendMessage","r",{"_placeholder":true,"num":7}]"#;
        assert_eq!(publish(nowhere, &files), None);
    }

    #[test]
    fn bad_expressions_are_told_with_their_field() {
        for text in ["", "$", "room", "$[x]", "$[0]x", "$..a", "$.a || b"] {
            assert_eq!(Expression::parse(text), None, "{text}");
        }
        let mut config = GatewayConfig::development();
        config.routes[0].join.as_mut().unwrap().room = "room".into();
        let mistakes = Routes::compile(&config.routes).unwrap_err();
        assert_eq!(mistakes[0].field, "routes[0].join.room");
    }
}
