//! Reads what a measurement printed with `--json`: one object, or a line of JSON for each object or row.

use crate::Failure;
use serde_json::Value;
use std::path::Path;

/// What one file contains.
#[derive(Clone, Debug, Default)]
pub(super) struct Source {
    /// The file's name.
    pub(super) name: String,
    pub(super) rows: Vec<Value>,
    pub(super) ratios: Vec<Value>,
    /// The machine that it was measured on, where the file has it.
    pub(super) machine: Option<Value>,
    /// Whether it is of a quick run, which decides no promise.
    pub(super) is_quick: bool,
}

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<Source, Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::Unusable(format!("can't read {shown}: {error}; name files that --json wrote")))?;
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    parse(&text, name).map_err(|why| {
        Failure::Unusable(format!("{shown}: {why}; name a file with the output of `bourdon-bench SUBCOMMAND --json`"))
    })
}

/// What a measurement of this process prints.
pub(super) fn measured(document: &Value) -> Source {
    let mut source = Source { name: "this run".to_owned(), ..Source::default() };
    source.add(document.clone()).expect("a measurement prints rows");
    source
}

fn parse(text: &str, name: String) -> Result<Source, String> {
    let mut source = Source { name, ..Source::default() };
    match serde_json::from_str::<Value>(text) {
        Ok(whole) => source.add(whole).map_err(|why| why.to_owned())?,
        Err(whole) => {
            for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
                let number = index + 1;
                let value = serde_json::from_str(line).map_err(|_| format!("it is no JSON ({whole})"))?;
                source.add(value).map_err(|why| format!("line {number}: {why}"))?;
            }
        }
    }
    if source.rows.is_empty() {
        return Err("it has no rows".to_owned());
    }
    Ok(source)
}

impl Source {
    /// Adds an object with rows, or a row.
    fn add(&mut self, mut value: Value) -> Result<(), &'static str> {
        if let Some(rows) = value.get_mut("rows") {
            let Value::Array(rows) = rows.take() else { return Err("\"rows\" is no list") };
            rows.into_iter().try_for_each(|row| self.add_row(row))?;
            if let Some(Value::Array(ratios)) = value.get_mut("ratios").map(Value::take) {
                self.ratios.extend(ratios);
            }
            self.is_quick |= value["quick"] == true;
            self.machine = value.get_mut("machine").map(Value::take).or(self.machine.take());
            return Ok(());
        }
        self.add_row(value)
    }

    fn add_row(&mut self, row: Value) -> Result<(), &'static str> {
        if !row["what"].is_string() {
            return Err("a row has no \"what\"");
        }
        self.rows.push(row);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Result<usize, String> {
        parse(text, "file".into()).map(|source| source.rows.len())
    }

    #[test]
    fn an_object_and_lines_are_read() {
        assert_eq!(rows("{\"rows\": [{\"what\": \"load\"}, {\"what\": \"fanout\"}], \"ratios\": []}\n"), Ok(2));
        assert_eq!(rows("{\"what\": \"load\"}\n\n{\"rows\": [{\"what\": \"fanout\"}]}\n"), Ok(2));
    }

    #[test]
    fn what_is_no_output_of_a_measurement_is_refused() {
        for text in
            ["", "what system count\nload bourdon 3", "[1, 2]", "{\"rows\": []}", "{\"rows\": 3}", "{\"rows\": [{}]}"]
        {
            assert!(rows(text).is_err(), "{text}");
        }
        assert!(rows("{\"what\": \"load\"}\n{\"that\": 1}").is_err_and(|why| why.contains("line 2")));
    }
}
