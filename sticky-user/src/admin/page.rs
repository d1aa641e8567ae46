//! A page that a person can watch: the table of `sticky status`, again and again.

use crate::status::Status;
use crate::status::table;

/// The page; it asks for itself again every two seconds.
pub(super) fn render(status: &Status) -> String {
    let table = table::render(status);
    let plain = anstream::adapter::strip_str(&table).to_string();
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"refresh\" content=\"2\"><title>sticky on {}</title></head>\n\
         <body><pre>{}</pre></body></html>\n",
        escape(&status.node),
        escape(&plain)
    )
}

/// Names and values come from whoever wrote the labels.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_label_is_text_not_markup() {
        assert_eq!(super::escape("<b> & \"c\""), "&lt;b&gt; &amp; &quot;c&quot;");
    }
}
