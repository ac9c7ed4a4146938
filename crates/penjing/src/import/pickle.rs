//! Python pickles read as data: a stack machine that knows no way to call anything.
//!
//! It understands the opcodes that `torch.save` emits (protocols 1 to 5). Functions and classes are entries
//! of the fixed table [`Global`]; a call of one is recorded, not made. Containers live in arenas and refer to
//! each other by index, so deep nesting, sharing and cycles cost nothing and dropping them never recurses.

use std::collections::HashMap;

use super::globals::Global;
use super::{What, shown};

/// Most opcodes one pickle may have. Each makes at most one value, so this bounds the stack, the memo and all
/// containers together; a state dict spends about fifty a tensor.
const MAX_OPCODES: usize = 2_000_000;

/// A Python value. Text and bytes are borrowed from the pickle; containers are indices into [`Pickle`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(&'a str),
    Bytes(&'a [u8]),
    Global(Global),
    /// Items in [`Pickle::items`].
    Tuple(usize),
    /// Items in [`Pickle::items`].
    List(usize),
    /// Entries in [`Pickle::entries`].
    Dict(usize),
    /// A call that was not made: [`Pickle::call`].
    Call(usize),
    /// torch's reference to a storage; its parts are [`Pickle::items`].
    Persistent(usize),
}

/// A pickle that has been read.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    pub(super) root: Value<'a>,
    /// Every storage reference in the pickle, used or not; indices for [`Pickle::items`].
    pub(super) persistent: Vec<usize>,
    sequences: Vec<Vec<Value<'a>>>,
    dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    calls: Vec<(Global, usize)>,
}

impl<'a> Pickle<'a> {
    /// Reads one pickle off the front of `input`, which is left behind its end.
    pub(super) fn read(input: &mut &'a [u8]) -> What<Self> {
        let pickle =
            Pickle { root: Value::None, persistent: vec![], sequences: vec![], dicts: vec![], calls: vec![] };
        let mut machine = Machine {
            input,
            pickle,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            left: MAX_OPCODES,
        };
        machine.run()?;
        Ok(machine.pickle)
    }

    /// The items of a tuple, a list or a storage reference.
    pub(super) fn items(&self, id: usize) -> &[Value<'a>] {
        &self.sequences[id]
    }

    /// The entries of a dict, in the order of insertion; a repeated key stands repeated, the last one counts.
    pub(super) fn entries(&self, id: usize) -> &[(Value<'a>, Value<'a>)] {
        &self.dicts[id]
    }

    /// What would have been called, and its arguments.
    pub(super) fn call(&self, id: usize) -> (Global, &[Value<'a>]) {
        let (global, args) = self.calls[id];
        (global, &self.sequences[args])
    }
}

struct Machine<'a, 'i> {
    input: &'i mut &'a [u8],
    pickle: Pickle<'a>,
    stack: Vec<Value<'a>>,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: HashMap<u64, Value<'a>>,
    /// Opcodes that may still be executed.
    left: usize,
}

const PROTO: u8 = 0x80;
const STOP: u8 = b'.';

impl<'a> Machine<'a, '_> {
    fn run(&mut self) -> What<()> {
        loop {
            self.spend(1)?;
            match self.byte()? {
                STOP => {
                    self.pickle.root = self.pop()?;
                    return Ok(());
                }
                opcode => self.step(opcode)?,
            }
        }
    }

    fn step(&mut self, opcode: u8) -> What<()> {
        match opcode {
            PROTO => {
                let protocol = self.byte()?;
                if protocol > 5 {
                    return Err(format!("pickle protocol {protocol}; 0 to 5 are known"));
                }
            }
            // FRAME announces a length for buffered readers; the opcodes in it stand for themselves.
            0x95 => {
                self.take(8)?;
            }
            b'(' => self.marks.push(self.stack.len()),
            b'0' => {
                self.pop()?;
            }
            b'1' => {
                self.pop_to_mark()?;
            }
            b'2' => self.push(self.top()?),

            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'I' => {
                let value = match self.line()? {
                    "01" => Value::Bool(true),
                    "00" => Value::Bool(false),
                    digits => Value::Int(decimal(digits)?),
                };
                self.push(value);
            }
            b'L' => {
                let line = self.line()?;
                self.push(Value::Int(decimal(line.strip_suffix('L').unwrap_or(line))?));
            }
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()));
            }
            b'K' => {
                let value = self.unsigned::<1>()?;
                self.push(Value::Int(value.into()));
            }
            b'M' => {
                let value = self.unsigned::<2>()?;
                self.push(Value::Int(value.into()));
            }
            0x8a => self.long::<1>()?,
            0x8b => self.long::<4>()?,
            b'G' => {
                let value = f64::from_be_bytes(self.array()?);
                self.push(Value::Float(value));
            }

            b'U' => self.old_string::<1>()?,
            b'T' => self.old_string::<4>()?,
            b'C' => self.bytes::<1>()?,
            b'B' => self.bytes::<4>()?,
            0x8e => self.bytes::<8>()?,
            0x8c => self.text::<1>()?,
            b'X' => self.text::<4>()?,
            0x8d => self.text::<8>()?,

            b']' => self.push_list(Vec::new()),
            b'l' => {
                let items = self.pop_to_mark()?;
                self.push_list(items);
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(items)?;
            }
            b')' => self.push_tuple(Vec::new()),
            b't' => {
                let items = self.pop_to_mark()?;
                self.push_tuple(items);
            }
            0x85..=0x87 => {
                let mut items = vec![Value::None; usize::from(opcode - 0x84)];
                for item in items.iter_mut().rev() {
                    *item = self.pop()?;
                }
                self.push_tuple(items);
            }
            b'}' => self.push_dict(Vec::new()),
            b'd' => {
                let items = self.pop_to_mark()?;
                self.push_dict(pairs(&items)?);
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.insert(vec![(key, value)])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.insert(pairs(&items)?)?;
            }

            b'p' => {
                let index = self.text_index()?;
                self.memoize(index)?;
            }
            b'q' => {
                let index = self.unsigned::<1>()?;
                self.memoize(index)?;
            }
            b'r' => {
                let index = self.unsigned::<4>()?;
                self.memoize(index)?;
            }
            0x94 => self.memoize(self.memo.len() as u64)?,
            b'g' => {
                let index = self.text_index()?;
                self.recall(index)?;
            }
            b'h' => {
                let index = self.unsigned::<1>()?;
                self.recall(index)?;
            }
            b'j' => {
                let index = self.unsigned::<4>()?;
                self.recall(index)?;
            }

            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?;
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Str(name), Value::Str(module)) => self.global(module, name)?,
                _ => return Err("the pickle names a function by something that is no text".into()),
            },
            // INST calls what it names; naming it first gives the better refusal.
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?;
                return Err(foreign(opcode));
            }
            b'R' => self.reduce()?,
            // The attributes of an object (torch puts layer versions there) say nothing about weights.
            b'b' => {
                self.pop()?;
                if !matches!(self.top()?, Value::Dict(_) | Value::Call(_)) {
                    return Err("the pickle sets attributes of something that is no object".into());
                }
            }
            b'Q' => {
                let Value::Tuple(id) = self.pop()? else {
                    return Err("the pickle refers to a storage by something that is no tuple".into());
                };
                self.pickle.persistent.push(id);
                self.push(Value::Persistent(id));
            }
            _ => return Err(foreign(opcode)),
        }
        Ok(())
    }

    fn spend(&mut self, opcodes: usize) -> What<()> {
        self.left = self.left.checked_sub(opcodes).ok_or_else(|| {
            format!(
                "the pickle has more than {MAX_OPCODES} operations; no state dict of tensors needs so many"
            )
        })?;
        Ok(())
    }

    fn take(&mut self, length: usize) -> What<&'a [u8]> {
        let (taken, rest) =
            self.input.split_at_checked(length).ok_or("the pickle is cut off; fetch the file again")?;
        *self.input = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> What<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> What<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// A little-endian number of `N` bytes.
    fn unsigned<const N: usize>(&mut self) -> What<u64> {
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(&self.array::<N>()?);
        Ok(u64::from_le_bytes(wide))
    }

    /// Bytes behind their length, which takes `N` bytes.
    fn sized<const N: usize>(&mut self) -> What<&'a [u8]> {
        let length = self.unsigned::<N>()?;
        // A length beyond the address space is beyond the input too.
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    fn line(&mut self) -> What<&'a str> {
        let end =
            self.input.iter().position(|&b| b == b'\n').ok_or("the pickle is cut off in a line of text")?;
        let line = self.take(end)?;
        self.take(1)?;
        str::from_utf8(line).map_err(|_| "the pickle has a line of text that is not UTF-8".into())
    }

    fn text_index(&mut self) -> What<u64> {
        let line = self.line()?;
        line.parse().map_err(|_| format!("the pickle has `{}` where a memo index belongs", shown(line)))
    }

    fn long<const N: usize>(&mut self) -> What<()> {
        let bytes = self.sized::<N>()?;
        let negative = bytes.last().is_some_and(|&b| b >= 0x80);
        let mut wide = [if negative { 0xff } else { 0 }; 16];
        wide.get_mut(..bytes.len())
            .ok_or("the pickle has an integer of more than 128 bits")?
            .copy_from_slice(bytes);
        self.push(Value::Int(i128::from_le_bytes(wide)));
        Ok(())
    }

    /// A byte string of Python 2, which wrote text as one: it is text wherever it can be.
    fn old_string<const N: usize>(&mut self) -> What<()> {
        let bytes = self.sized::<N>()?;
        self.push(str::from_utf8(bytes).map_or(Value::Bytes(bytes), Value::Str));
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> What<()> {
        let bytes = self.sized::<N>()?;
        self.push(Value::Bytes(bytes));
        Ok(())
    }

    fn text<const N: usize>(&mut self) -> What<()> {
        let bytes = self.sized::<N>()?;
        self.push(Value::Str(str::from_utf8(bytes).map_err(|_| "the pickle has text that is not UTF-8")?));
        Ok(())
    }

    fn push(&mut self, value: Value<'a>) {
        self.stack.push(value);
    }

    fn push_tuple(&mut self, items: Vec<Value<'a>>) {
        self.push(Value::Tuple(self.pickle.sequences.len()));
        self.pickle.sequences.push(items);
    }

    fn push_list(&mut self, items: Vec<Value<'a>>) {
        self.push(Value::List(self.pickle.sequences.len()));
        self.pickle.sequences.push(items);
    }

    fn push_dict(&mut self, entries: Vec<(Value<'a>, Value<'a>)>) {
        self.push(Value::Dict(self.pickle.dicts.len()));
        self.pickle.dicts.push(entries);
    }

    /// The lowest height of the stack that a plain pop may reach: a mark guards what lies below it.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> What<Value<'a>> {
        self.stack[self.floor()..].last().copied().ok_or_else(underflow)
    }

    fn pop(&mut self) -> What<Value<'a>> {
        let value = self.top()?;
        self.stack.pop();
        Ok(value)
    }

    fn pop_to_mark(&mut self) -> What<Vec<Value<'a>>> {
        let mark = self.marks.pop().ok_or_else(underflow)?;
        Ok(self.stack.split_off(mark))
    }

    fn append(&mut self, items: Vec<Value<'a>>) -> What<()> {
        let Value::List(id) = self.top()? else {
            return Err("the pickle appends to something that is no list".into());
        };
        self.pickle.sequences[id].extend(items);
        Ok(())
    }

    fn insert(&mut self, entries: Vec<(Value<'a>, Value<'a>)>) -> What<()> {
        let Value::Dict(id) = self.top()? else {
            return Err("the pickle sets an entry of something that is no dict".into());
        };
        self.pickle.dicts[id].extend(entries);
        Ok(())
    }

    fn memoize(&mut self, index: u64) -> What<()> {
        self.memo.insert(index, self.top()?);
        Ok(())
    }

    fn recall(&mut self, index: u64) -> What<()> {
        let value = self.memo.get(&index).copied();
        self.push(value.ok_or_else(|| format!("the pickle recalls memo {index}, which was never set"))?);
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> What<()> {
        let global = Global::known(module, name).ok_or_else(|| {
            format!(
                "refused: the pickle names the function `{}.{}`; a state dict of tensors needs no such thing \
                 (if you trust the file, load it in PyTorch and save its weights alone: \
                 torch.save(model.state_dict(), PATH))",
                shown(module),
                shown(name)
            )
        })?;
        self.push(Value::Global(global));
        Ok(())
    }

    fn reduce(&mut self) -> What<()> {
        let (Value::Tuple(args), Value::Global(global)) = (self.pop()?, self.pop()?) else {
            return Err("the pickle calls something that is no known function".into());
        };
        match global {
            Global::Dict => {
                let entries = self.ordered_dict(args)?;
                self.push_dict(entries);
            }
            Global::Tensor | Global::Parameter | Global::Size | Global::Opaque => {
                self.push(Value::Call(self.pickle.calls.len()));
                self.pickle.calls.push((global, args));
            }
            Global::Storage(_) => return Err("the pickle calls a storage class".into()),
        }
        Ok(())
    }

    /// The entries of an ordered dict made from nothing, a dict or a list of pairs (Python 2).
    fn ordered_dict(&mut self, args: usize) -> What<Vec<(Value<'a>, Value<'a>)>> {
        match *self.pickle.items(args) {
            [] => Ok(Vec::new()),
            // Copying is the one operation whose cost is not bounded by its own opcode.
            [Value::Dict(id)] => {
                self.spend(self.pickle.entries(id).len())?;
                Ok(self.pickle.entries(id).to_vec())
            }
            [Value::List(id)] => {
                self.spend(self.pickle.items(id).len())?;
                let pair = |item: &Value<'a>| match *item {
                    Value::Tuple(id) | Value::List(id) => match *self.pickle.items(id) {
                        [key, value] => Ok((key, value)),
                        _ => Err("the pickle makes a dict of items that are no pairs".to_string()),
                    },
                    _ => Err("the pickle makes a dict of items that are no pairs".to_string()),
                };
                self.pickle.items(id).iter().map(pair).collect()
            }
            _ => Err("the pickle makes an ordered dict of something that is neither dict nor list".into()),
        }
    }
}

fn pairs<'a>(items: &[Value<'a>]) -> What<Vec<(Value<'a>, Value<'a>)>> {
    let (pairs, rest) = items.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("the pickle sets a dict entry that has a key and no value".into());
    }
    Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
}

fn decimal(digits: &str) -> What<i128> {
    digits.parse().map_err(|_| format!("the pickle has `{}` where an integer belongs", shown(digits)))
}

fn underflow() -> String {
    "the pickle takes more from its stack than it put there".into()
}

fn foreign(opcode: u8) -> String {
    format!("the pickle has the operation 0x{opcode:02x}, which no state dict of tensors needs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> What<Pickle<'_>> {
        let mut input = bytes;
        Pickle::read(&mut input)
    }

    fn root(bytes: &[u8]) -> Value<'_> {
        read(bytes).unwrap_or_else(|what| panic!("{bytes:?}: {what}")).root
    }

    #[test]
    fn numbers_have_the_value_python_gives_them() {
        for (bytes, value) in [
            (&b"K\xff."[..], 255),
            (b"M\x00\x80.", 0x8000),
            (b"J\xff\xff\xff\xff.", -1),
            (b"\x8a\x00.", 0),
            (b"\x8a\x01\x80.", -128),
            (b"\x8a\x02\xff\x00.", 255),
            (b"\x8b\x01\x00\x00\x00\x7f.", 127),
            (b"I-12\n.", -12),
            (b"L119547037146038801333356L\n.", 0x1950_a86a_20f9_469c_fc6c),
        ] {
            assert_eq!(root(bytes), Value::Int(value), "{bytes:?}");
        }
        assert_eq!(root(b"I01\n."), Value::Bool(true));
        assert_eq!(root(b"G\x3f\xf8\0\0\0\0\0\0."), Value::Float(1.5));
    }

    #[test]
    fn reading_stops_behind_the_pickle() {
        let mut input = &b"\x80\x02K\x01.rest"[..];
        Pickle::read(&mut input).unwrap();
        assert_eq!(input, b"rest");
    }

    #[test]
    fn a_python_2_ordered_dict_is_a_dict() {
        let pickle = read(b"ccollections\nOrderedDict\n]](U\x01aK\x01ea\x85R.").unwrap();
        let Value::Dict(id) = pickle.root else { panic!("{:?}", pickle.root) };
        assert_eq!(pickle.entries(id), [(Value::Str("a"), Value::Int(1))]);
    }

    #[test]
    fn every_name_outside_the_table_is_refused_by_its_name() {
        for (bytes, name) in [
            (&b"cposix\nsystem\n(X\x02\0\0\0lstR."[..], "`posix.system`"),
            (b"\x8c\x08builtins\x8c\x04eval\x93.", "`builtins.eval`"),
            (b"(ios\nsystem\n.", "`os.system`"),
            (b"ctorch\nload\n.", "`torch.load`"),
            (b"ctorch\nEvilStorage\n.", "`torch.EvilStorage`"),
            (b"ccollections\nOrderedDict.__init__.__globals__\n.", "OrderedDict.__init__"),
            (b"cos\x1b[2J\nsystem\n.", r"`os\u{1b}[2J.system`"),
        ] {
            let what = read(bytes).unwrap_err();
            assert!(what.contains("refused") && what.contains(name), "{what}");
        }
    }

    #[test]
    fn malformed_pickles_are_refused() {
        for bytes in [
            &b""[..],
            b".",
            b"0.",
            b"(0.",
            b"N(.",
            b"t.",
            b"\x80\x06N.",
            b"h\x00.",
            b"Na.",
            b"]K\x01K\x02s.",
            b"}(K\x01u.",
            b"}(K\x01K\x02K\x03u.",
            b"NR.",
            b"N)R.",
            b"ctorch\nFloatStorage\n)R.",
            b"NQ.",
            b"NNb.",
            b"\x8c\x03\xff\xfe\xfd.",
            b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffx.",
            b"\x8b\xff\xff\xff\x7f.",
            b"\x8a\x11aaaaaaaaaaaaaaaaa.",
            b"I12x\n.",
            b"p-1\n.",
            b"\x81.",
            b"\x82\x01.",
            b"\xff.",
        ] {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn deep_nesting_sharing_and_cycles_cost_nothing() {
        let deep = [&b")"[..], &b"\x85".repeat(1_000_000), b"."].concat();
        assert!(matches!(root(&deep), Value::Tuple(1_000_000)));
        // Each level holds the one below it twice: 2^100000 leaves if it were a tree.
        let shared = [&b")"[..], &b"2\x86".repeat(100_000), b"."].concat();
        assert!(matches!(root(&shared), Value::Tuple(100_000)));
        let cycle = read(b"]q\x00h\x00a.").unwrap();
        assert_eq!(cycle.items(0), [Value::List(0)]);
    }

    #[test]
    fn the_number_of_operations_is_limited_copies_included() {
        let long = b"N0".repeat(MAX_OPCODES / 2 + 1);
        assert!(read(&long).unwrap_err().contains("operations"));
        let pairs = [&b"](NN\x86q\x00"[..], &b"h\x00".repeat(10_000), b"eq\x01"].concat();
        let copies = b"ccollections\nOrderedDict\nh\x01\x85R0".repeat(1_000);
        assert!(read(&[pairs, copies].concat()).unwrap_err().contains("operations"));
    }
}
