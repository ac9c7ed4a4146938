//! FlatBuffers, read where they stand: every offset is checked before it is followed, and nothing is allocated.
//!
//! A table begins with the distance back to its vtable, which lists where in the table each field stands, by the field's
//! number in the schema; a field that is not listed has its default. Strings, vectors and tables are fields that say how
//! far ahead they begin.

use super::What;

/// Most items of a vector of tables: many may be the same table, so the file's length alone is no bound.
const MAX_TABLES: usize = 1 << 16;
/// Most numbers of a vector that is read number by number, for the same reason.
const MAX_NUMBERS: usize = 1 << 16;

/// The first fields of a vtable: its own length and the table's.
const VTABLE_HEAD: usize = 4;

/// A table inside a buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Bytes of the table that its fields may stand in.
    len: usize,
    /// Where each field stands in the table, two bytes each.
    fields: &'a [u8],
}

/// A vector of tables.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tables<'a> {
    bytes: &'a [u8],
    at: usize,
    len: usize,
}

impl<'a> Table<'a> {
    /// The root of a buffer.
    pub(super) fn root(bytes: &'a [u8]) -> What<Self> {
        Self::new(bytes, ahead(bytes, 0)?)
    }

    fn new(bytes: &'a [u8], at: usize) -> What<Self> {
        let back = i32::from_le_bytes(take(bytes, at)?);
        let vtable = i64::try_from(at).ok().and_then(|at| usize::try_from(at - i64::from(back)).ok());
        let vtable = vtable.ok_or_else(damaged)?;
        let length = |offset| Ok::<_, String>(usize::from(u16::from_le_bytes(take(bytes, vtable + offset)?)));
        let (vtable_len, len) = (length(0)?, length(2)?);
        let fields = bytes.get(vtable..vtable + vtable_len).and_then(|vtable| vtable.get(VTABLE_HEAD..));
        match fields {
            Some(fields) if bytes.len() - at >= len => Ok(Table { bytes, at, len, fields }),
            _ => Err(damaged()),
        }
    }

    /// Where field `id` stands, and that its `size` bytes stand in the table. `None` where it has its default.
    fn place(&self, id: usize, size: usize) -> What<Option<usize>> {
        let Some(offset) = self.fields.get(2 * id..2 * id + 2) else { return Ok(None) };
        let offset = usize::from(u16::from_le_bytes([offset[0], offset[1]]));
        match offset {
            0 => Ok(None),
            offset if offset + size <= self.len => Ok(Some(self.at + offset)),
            _ => Err(damaged()),
        }
    }

    fn number<const N: usize>(&self, id: usize) -> What<Option<[u8; N]>> {
        self.place(id, N)?.map(|at| take(self.bytes, at)).transpose()
    }

    /// A whole number of one byte.
    pub(super) fn u8(&self, id: usize, default: u8) -> What<u8> {
        Ok(self.number(id)?.map_or(default, u8::from_le_bytes))
    }

    /// A whole number of one byte, with a sign.
    pub(super) fn i8(&self, id: usize, default: i8) -> What<i8> {
        Ok(self.number(id)?.map_or(default, i8::from_le_bytes))
    }

    /// A whole number of four bytes.
    pub(super) fn u32(&self, id: usize, default: u32) -> What<u32> {
        Ok(self.number(id)?.map_or(default, u32::from_le_bytes))
    }

    /// A whole number of four bytes, with a sign.
    pub(super) fn i32(&self, id: usize, default: i32) -> What<i32> {
        Ok(self.number(id)?.map_or(default, i32::from_le_bytes))
    }

    /// A whole number of eight bytes.
    pub(super) fn u64(&self, id: usize, default: u64) -> What<u64> {
        Ok(self.number(id)?.map_or(default, u64::from_le_bytes))
    }

    /// A floating-point number of four bytes.
    pub(super) fn f32(&self, id: usize, default: f32) -> What<f32> {
        Ok(self.number(id)?.map_or(default, f32::from_le_bytes))
    }

    /// Where the thing begins that field `id` refers to.
    fn reference(&self, id: usize) -> What<Option<usize>> {
        self.place(id, 4)?.map(|at| ahead(self.bytes, at)).transpose()
    }

    /// A table.
    pub(super) fn table(&self, id: usize) -> What<Option<Table<'a>>> {
        self.reference(id)?.map(|at| Table::new(self.bytes, at)).transpose()
    }

    /// The items of a vector, `size` bytes each: where they begin and how many there are.
    fn items(&self, id: usize, size: usize) -> What<Option<(usize, usize)>> {
        let Some(at) = self.reference(id)? else { return Ok(None) };
        let count = u32::from_le_bytes(take(self.bytes, at)?) as usize;
        let first = at + 4;
        let bytes = count.checked_mul(size).ok_or_else(damaged)?;
        if self.bytes.len() - first < bytes {
            return Err(damaged());
        }
        Ok(Some((first, count)))
    }

    /// The bytes of a vector of bytes, or of a string, which is one; empty where there is none.
    pub(super) fn bytes(&self, id: usize) -> What<&'a [u8]> {
        Ok(self.items(id, 1)?.map_or(&[], |(first, count)| &self.bytes[first..first + count]))
    }

    /// The numbers of a vector, `N` bytes each; empty where there is none.
    pub(super) fn numbers<const N: usize>(&self, id: usize) -> What<&'a [[u8; N]]> {
        let Some((first, count)) = self.items(id, N)? else { return Ok(&[]) };
        if count > MAX_NUMBERS {
            return Err(format!("has a list of {count} numbers; at most {MAX_NUMBERS} are read"));
        }
        Ok(self.bytes[first..first + count * N].as_chunks().0)
    }

    /// The tables of a vector; empty where there is none.
    pub(super) fn tables(&self, id: usize) -> What<Tables<'a>> {
        let (at, len) = self.items(id, 4)?.unwrap_or_default();
        if len > MAX_TABLES {
            return Err(format!("has a list of {len} tables; at most {MAX_TABLES} are read"));
        }
        Ok(Tables { bytes: self.bytes, at, len })
    }
}

impl<'a> Tables<'a> {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The table at `index`. `None` beyond the end.
    pub(super) fn get(&self, index: usize) -> What<Option<Table<'a>>> {
        if index >= self.len {
            return Ok(None);
        }
        ahead(self.bytes, self.at + 4 * index).and_then(|at| Table::new(self.bytes, at)).map(Some)
    }
}

/// Where the thing begins that the offset at `at` refers to.
fn ahead(bytes: &[u8], at: usize) -> What<usize> {
    let offset = u32::from_le_bytes(take(bytes, at)?) as usize;
    // What begins at the end of the buffer has no byte.
    at.checked_add(offset).filter(|&to| offset > 0 && to < bytes.len()).ok_or_else(damaged)
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> What<[u8; N]> {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or_else(damaged)
}

fn damaged() -> String {
    "is damaged or cut short: an offset points out of the file; fetch the file again".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A buffer with one table: a byte, an i32, a string, numbers, a table that is this one, a vector of it twice.
    fn sample() -> Vec<u8> {
        let mut bytes = vec![0u8; 112];
        let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
        put(0, &28u32.to_le_bytes()); // the root
        // The vtable: its length, the table's, then fields 0..=7; field 2 has its default.
        for (index, value) in [20u16, 28, 4, 8, 0, 12, 16, 20, 24, 24].into_iter().enumerate() {
            put(8 + 2 * index, &value.to_le_bytes());
        }
        put(28, &20i32.to_le_bytes());
        put(32, &[7]);
        put(36, &(-5i32).to_le_bytes());
        put(40, &20u32.to_le_bytes()); // → 60
        put(44, &24u32.to_le_bytes()); // → 68
        put(48, &32u32.to_le_bytes()); // → 80
        put(52, &44u32.to_le_bytes()); // → 96
        put(60, &3u32.to_le_bytes());
        put(64, b"abc");
        put(68, &2u32.to_le_bytes());
        put(72, &1i32.to_le_bytes());
        put(76, &(-2i32).to_le_bytes());
        // A table with an empty vtable.
        put(80, &(-8i32).to_le_bytes());
        put(88, &[4, 0, 4, 0]);
        put(96, &2u32.to_le_bytes());
        put(100, &4u32.to_le_bytes()); // → 104
        put(104, &16i32.to_le_bytes()); // → the vtable at 88
        bytes
    }

    #[test]
    fn fields_are_found_and_absent_ones_have_their_default() {
        let bytes = sample();
        let table = Table::root(&bytes).unwrap();
        assert_eq!((table.u8(0, 0), table.i32(1, 0), table.i32(2, 11)), (Ok(7), Ok(-5), Ok(11)));
        assert_eq!(table.bytes(3), Ok(&b"abc"[..]));
        let numbers: Vec<i32> = table.numbers(4).unwrap().iter().map(|b| i32::from_le_bytes(*b)).collect();
        assert_eq!(numbers, [1, -2]);
        let inner = table.table(5).unwrap().expect("there is a table");
        assert_eq!(inner.u8(3, 9), Ok(9));
        let tables = table.tables(6).unwrap();
        // The second offset is 0, which refers to nothing.
        assert_eq!([0, 1].map(|index| tables.get(index).is_ok()), [true, false]);
        assert_eq!((tables.len(), tables.get(2).unwrap().is_none()), (2, true));
        assert_eq!((table.f32(99, 1.5), table.numbers::<4>(99)), (Ok(1.5), Ok(&[][..])));
        // The last field has no room for eight bytes, and −5 is no way ahead.
        assert_eq!(table.u64(6, 0), Err(damaged()));
        assert_eq!(table.bytes(1), Err(damaged()));
    }

    #[test]
    fn offsets_out_of_the_buffer_are_refused() {
        let bytes = sample();
        for end in 0..104 {
            let read = std::panic::catch_unwind(|| {
                Table::root(&bytes[..end]).and_then(|table| {
                    table.u8(0, 0)?;
                    table.bytes(3)?;
                    table.numbers::<4>(4)?;
                    table.table(5)?;
                    table.tables(6)?.get(0)
                })
            });
            assert!(read.unwrap().is_err(), "cut at {end}");
        }
        for at in 0..bytes.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] ^= change;
                let Ok(table) = Table::root(&bytes) else { continue };
                for id in 0..10 {
                    let _ = (table.u64(id, 0), table.bytes(id), table.numbers::<8>(id), table.table(id));
                    if let Ok(tables) = table.tables(id) {
                        (0..tables.len().min(9)).for_each(|index| drop(tables.get(index)));
                    }
                }
            }
        }
    }
}
