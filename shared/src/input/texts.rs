//! All texts of a body, one by one, for whoever compares them with something. Pure.

use super::read::{self, Fault, Reader, Scalar, Text};

struct Each<'a>(&'a mut dyn FnMut(&str));

impl Reader for Each<'_> {
    fn text(&mut self, text: Text<'_>) -> Result<(), Fault> {
        (self.0)(text.text);
        Ok(())
    }

    fn member(&mut self, _: &str, _: Scalar) -> Result<(), Fault> {
        Ok(())
    }

    fn spelling(&self, _: &str, _: &str) -> Option<&str> {
        None
    }

    fn needs_text(&self) -> bool {
        false
    }
}

/// Shows every text of a request body that a model may read; `false` if not all of the body could be read.
pub fn texts(body: &[u8], each: &mut dyn FnMut(&str)) -> bool {
    read::read(body, &mut Each(each)).is_ok()
}
