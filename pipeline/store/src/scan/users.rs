//! The users of a month's links, each once and in their order, with the days on which any of their devices saw them.

use ameles_core::Month;
use ameles_schemas::Table;

use super::pieces::Kind;
use super::{Columns, Piece, Reader, Wanted};
use crate::{ReadView, StoreError};

/// Links read at once: as many as a page has.
const READ_ROWS: usize = 8 << 10;

impl ReadView {
    /// A month's links as one piece in the order of users, what a pending erasure leaves of the devices that it touches among them. None without links.
    ///
    /// Footers tell nothing of users, so that there is nothing to take out of them: a file's links are found from its beginning only.
    pub fn links_by_user(&self, month: Month) -> Option<Piece> {
        let files = self.snapshot().month_files(Table::Links, month);
        let rows = files.iter().map(|file| usize::try_from(file.rows).unwrap_or(usize::MAX)).sum();
        (!files.is_empty()).then_some(Piece(Kind::Merged { month, rows }))
    }
}

/// Reads users one after the other: links of one user are neighbours.
pub struct Users<'v> {
    links: Reader<'v>,
    columns: Columns,
    /// The last user met, whose links may go on.
    last: Option<(u128, u32)>,
    group: Option<u32>,
    done: bool,
}

impl<'v> Users<'v> {
    /// Of [`ReadView::links_by_user`]. With `wanted.grouping`, which must be whole, groups are given too.
    pub fn new(view: &'v ReadView, wanted: &Wanted, links: impl IntoIterator<Item = Piece>) -> Self {
        let columns = Wanted { users: true, days: true, ..Wanted::default() };
        Self {
            links: Reader::new(view, Table::Links, &columns, links),
            columns: Columns::default(),
            last: None,
            group: wanted.grouping.as_ref().map(|grouping| grouping.whole_group()),
            done: false,
        }
    }

    /// Appends some users as the `devices` of rows, with their days; `None` after the last.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read(&mut self, rows_max: usize, out: &mut Columns) -> Result<Option<usize>, StoreError> {
        let start = out.rows;
        while !self.done && out.rows == start {
            self.columns.clear();
            if self.links.read(rows_max.min(READ_ROWS), &mut self.columns)?.is_none() {
                self.done = true;
                self.put(out);
                break;
            }
            let columns = std::mem::take(&mut self.columns);
            for (user, days) in columns.users.iter().zip(&columns.days) {
                match &mut self.last {
                    Some(last) if last.0 == *user => last.1 |= days,
                    _ => {
                        self.put(out);
                        self.last = Some((*user, *days));
                    }
                }
            }
            self.columns = columns;
        }
        Ok((out.rows > start).then_some(out.rows - start))
    }

    /// Appends the last user met.
    fn put(&mut self, out: &mut Columns) {
        if let Some((user, days)) = self.last.take() {
            out.devices.push(user);
            out.days.push(days);
            out.groups.extend(self.group);
            out.rows += 1;
        }
    }
}
