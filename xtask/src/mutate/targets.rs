//! What is broken, where, and by which run of tests it should be noticed.

/// A file, the quickest run of tests that should notice when it is broken, and the ways to break it.
pub struct Target {
    pub file: &'static str,
    /// Arguments of `cargo test --all-features`; without a `-p`, the file's own crate is tested.
    pub test: &'static str,
    /// Name, text that occurs exactly once in the file, text in its place.
    pub mutations: &'static [[&'static str; 3]],
}

#[rustfmt::skip]
pub const TARGETS: &[Target] = &[
    Target { file: "crates/penjing/src/zoo/blocks.rs", test: "--test zoo", mutations: &[
        ["padding side: odd zero top left", "[total / 2, total - total / 2]", "[total - total / 2, total / 2]"],
        ["squeeze-and-excitation: gate by sigmoid", "Op::Act(Act::HSigmoid)", "Op::Act(Act::Sigmoid)"],
        ["ShuffleNet: halves joined the other way round", "Op::Concat, &[kept, y]", "Op::Concat, &[y, kept]"],
        ["SqueezeNet: pools without a last window over the edge", "if ceil_mode { [0; 4] }", "if !ceil_mode { [0; 4] }"],
        ["MobileNetV4: stride at the first convolution", "if middle == 0 { stride } else { 1 }", "if middle != 0 { stride } else { 1 }"],
    ]},
    Target { file: "crates/penjing/src/zoo/efficientnet_lite.rs", test: "--test zoo", mutations: &[
        ["BatchNorm epsilon of EfficientNet-Lite 1e-5", "bn_eps: 1e-3,", "bn_eps: 1e-5,"],
        ["depth of EfficientNet-Lite rounded down", "* depth).ceil()", "* depth).floor()"],
    ]},
    Target { file: "crates/penjing/src/zoo/mobilenet_v3.rs", test: "--test zoo", mutations: &[
        ["stem of a narrow MobileNetV3 scaled too", "if width < 0.75 { 16 }", "if width < 0.25 { 16 }"],
    ]},
    Target { file: "crates/penjing/src/zoo/forms.rs", test: "--lib --test zoo zoo:: logits", mutations: &[
        ["mean of ImageNet in reverse", "[0.485 * 255.0, 0.456 * 255.0, 0.406 * 255.0]", "[0.406 * 255.0, 0.456 * 255.0, 0.485 * 255.0]"],
        ["BatchNorm epsilon of torchvision's networks 1e-3", "padding: Padding::Symmetric, bn_eps: 1e-5, look, key }\n}\n\n/// What timm", "padding: Padding::Symmetric, bn_eps: 1e-3, look, key }\n}\n\n/// What timm"],
        ["deviation of ImageNet in reverse", "[0.229 * 255.0, 0.224 * 255.0, 0.225 * 255.0]", "[0.225 * 255.0, 0.224 * 255.0, 0.229 * 255.0]"],
    ]},
    Target { file: "crates/penjing/src/zoo/resize.rs", test: "--lib transfer::adapt", mutations: &[
        ["padding kept at another size", "&& tensorflow\n            &&", "&& !tensorflow\n            &&"],
    ]},
    Target { file: "crates/penjing/src/transfer/advise.rs", test: "--lib transfer::advise", mutations: &[
        ["LogME: weights' precision left out", "- beta * rest - alpha * weights", "- beta * rest"],
        ["left out: the mean not counted", "1.0 - hat - 1.0 / photos as f64", "1.0 - hat"],
    ]},
    Target { file: "crates/penjing/src/import/onnx/layers.rs", test: "--test onnx", mutations: &[
        ["ONNX: a map laid flat in the file's order", "row * columns + column % c * (h * w) + column / c", "at"],
        ["ONNX: odd zero of SAME_LOWER at the end", "else { [total - less, less] }", "else { [less, total - less] }"],
        ["ONNX: zeros put around a map are lost", "*side = side.saturating_add(before);", "*side += 0 * before;"],
        ["ONNX: beta of a bias ignored", "values[i.min(values.len() - 1)] * beta", "values[i.min(values.len() - 1)]"],
    ]},
    Target { file: "crates/penjing/src/import/onnx/arithmetic.rs", test: "--test onnx", mutations: &[
        ["ONNX: x times the sigmoid of something else is SiLU", "if of != x.at || x.at == 0 || ", "if x.at == 0 || "],
        ["ONNX: every hard sigmoid is ours", "if (alpha - 1.0 / 6.0).abs() > 1e-6 || beta != 0.5 {", "if alpha < 0.0 {"],
        ["ONNX: a constant minus a map is the map minus it", "changed(x, &[-1.0], &by)", "changed(x, &[1.0], &by)"],
    ]},
    Target { file: "crates/penjing/src/import/onnx/external.rs", test: "--lib import::onnx::external", mutations: &[
        ["ONNX: weights by a link out of the folder", "if !path.starts_with(&folder) {", "if path.is_dir() {"],
    ]},
    Target { file: "crates/penjing/src/import/onnx/contract.rs", test: "--lib import::onnx::contract", mutations: &[
        ["ONNX: a normalization of 0..=1 taken for one of 0..=255", ".fold(0.0, f64::max) <= 1.5;",
            ".fold(0.0, f64::max) <= 0.0;"],
    ]},
    Target { file: "crates/penjing/src/export/onnx/layers.rs", test: "--test onnx", mutations: &[
        ["ONNX out: weights in our order", "run[at % taps * c + at / taps]", "run[at]"],
        ["ONNX out: BatchNorm folded into what others read", "let [user] = self.users[id.index()][..] else {",
            "let [user, ..] = self.users[id.index()][..] else {"],
    ]},
    Target { file: "crates/penjing-kernels/src/separable.rs", test: "--lib separable", mutations: &[
        ["blocks by rows: kept rows are those of the image before", "image == self.image && ", ""],
        ["blocks by rows: kept rows stay where they were", "self.values.copy_within(start..start + kept, 0);", ""],
        ["blocks by rows: padding of the first rows everywhere",
            "pad_top: (window.pad_top + seen[0]).saturating_sub(top),", "pad_top: window.pad_top,"],
        ["blocks by rows: residual of the first rows everywhere", "r[first * width..]", "r[0..]"],
    ]},
    Target { file: "crates/penjing-kernels/src/winograd.rs", test: "--lib winograd", mutations: &[
        ["Winograd: bias of the first columns everywhere", "bias: &biases[column..],", "bias: biases,"],
        ["Winograd: a kernel's last point is its last but one", "even_q - odd_q, g2]", "even_q + odd_q, g2]"],
    ]},
    Target { file: "crates/penjing-kernels/src/arch/winograd.rs", test: "--lib winograd", mutations: &[
        ["Winograd: the border of a map is always right and below", "d[column] = get", "d[j] = get"],
        ["Winograd: no residual", "if !pixel.residual.is_null() {", "if false {"],
    ]},
    Target { file: "crates/penjing-runtime/src/lower/rows.rs", test: "--test lowering random_graphs", mutations: &[
        ["blocks by rows: a map that others read too", "self.only_user(input) != Some(id) || ", ""],
        ["blocks by rows: what passes on another's values", "let passes_on = matches!",
            "let passes_on = false && matches!"],
    ]},
    Target { file: "crates/penjing-kernels/src/int8/mod.rs", test: "--lib int8", mutations: &[
        ["int8: sums are cut off, not rounded", "+ ONE / 2 + i64::from(zero_point) * ONE", "+ i64::from(zero_point) * ONE"],
        ["int8: zero point of the result forgotten", " + i64::from(zero_point) * ONE;", ";"],
    ]},
    Target { file: "crates/penjing-runtime/src/lower/int8.rs", test: "--test quantized", mutations: &[
        ["int8: zero point of the input with the other sign", "saturating_sub(i64::from(x.zero_point) * sum)",
            "saturating_add(i64::from(x.zero_point) * sum)"],
        ["int8: the first channel's scale for all", "[if integers.scales.len() == 1 { 0 } else { output }]", "[0]"],
        ["int8: padding of 0 for the byte of zero", "let zero_point = self.graph.quant(input)?.zero_point;",
            "let zero_point = self.graph.quant(input)?.zero_point * 0;"],
        ["int8: ReLU6 cuts off nothing", "Limits { low: quant.byte(low), high: quant.byte(high) }",
            "Limits { low: quant.byte(low), high: quant.byte(high).max(255) }"],
    ]},
    Target { file: "crates/penjing/src/compress/fold.rs", test: "--lib compress", mutations: &[
        ["folded BatchNorm: the mean not scaled", "(f64::from(bias[c]) - f64::from(mean[c])) * factor(c)",
            "f64::from(bias[c]) * factor(c) - f64::from(mean[c])"],
    ]},
    Target { file: "crates/penjing/src/compress/gptq.rs", test: "--lib compress", mutations: &[
        ["4 bits: nothing is fed back", "*w -= moved * u", "*w -= 0.0 * moved * u"],
    ]},
    Target { file: "crates/penjing/src/compress/reads.rs", test: "--lib compress", mutations: &[
        ["4 bits: windows begin at the right", "place = along(y, dy, 0, conv.padding[0], h).zip(along(x, dx, 1, conv.padding[2], w))",
            "place = along(y, dy, 0, conv.padding[0], h).zip(along(x, dx, 1, conv.padding[3], w))"],
    ]},
    Target { file: "crates/penjing/src/compress/prune/ledger.rs", test: "--lib --test prune -- prune:: random_graphs what_is_left", mutations: &[
        ["pruning: joined channels the other way round", "(0..node.inputs.len()).flat_map(input)", "(0..node.inputs.len()).rev().flat_map(input)"],
        ["pruning: the shuffle undone", "place % groups * each + place / groups", "place % each * groups + place / each"],
        ["pruning: a shuffle ties nothing", "Op::ChannelShuffle { groups } => {\n                    ties.tie_groups(input(0), *groups);",
            "Op::ChannelShuffle { groups } => {"],
        ["pruning: sums tie nothing", "for_each(|(&a, &b)| ties.tie(a, b))", "for_each(|_| ())"],
    ]},
    Target { file: "crates/penjing/src/compress/prune/choose.rs", test: "--lib --test prune -- choose half_of", mutations: &[
        ["pruning: rounded up past the budget", "takes.macs as f64 <= (1.0 - goal) * whole as f64", "takes.macs as f64 <= (1.0 - goal) * whole as f64 + 16.0 * 4096.0"],
    ]},
    Target { file: "crates/penjing/src/compress/prune/criteria.rs", test: "--lib criteria", mutations: &[
        ["pruning: convolutions in groups tell nothing", "return losses_in_groups(sight, node, weights);", "return Vec::new();"],
        ["pruning: filters are judged with BatchNorm in them", "before.filter(|before| before.len() == weights.len()).unwrap_or(weights)", "before.filter(|_| false).unwrap_or(weights)"],
        ["pruning: nothing is left of a branch", "order.sort_by_key(|unit| last.contains(unit));", ""],
    ]},
    Target { file: "crates/penjing/src/compress/prune/choose.rs", test: "--lib choose", mutations: &[
        ["pruning: weights are saved where time is asked for", "Saving::Time => takes.time,", "Saving::Time => takes.params,"],
    ]},
    Target { file: "crates/penjing/src/compress/budget/form.rs", test: "--lib --test budget -- budget busy moment", mutations: &[
        ["budget: a slow moment passes the best one over", "over > 1.0 && over <= NOISE", "over.is_nan() && over <= NOISE"],
        ["budget: networks are measured alone", "before * self.clock.ratio(model, &self.starts[0])?", "before * 0.0 + self.clock.ms(model)?"],
        ["budget: a step too far is taken", "Some(tried) => (last, found) = (middle, tried)", "Some(tried) => (last, found) = (middle - 1, tried)"],
        ["budget: what is over by a hair is let through", "needs > *allowed", "needs > 1.5 * *allowed"],
        ["budget: memory does not count", "budget.ram.map(|most| self.ram as f64 / most as f64)", "None"],
    ]},
    Target { file: "crates/penjing/src/compress/budget/picture.rs", test: "--lib picture", mutations: &[
        ["budget: what was never made is joined", ".filter(|tried| tried.is_made())", ""],
    ]},
    Target { file: "crates/penjing/src/compress/budget/mod.rs", test: "--test budget", mutations: &[
        ["budget: the worst go on", "nll(b).total_cmp(&nll(a))", "nll(a).total_cmp(&nll(b))"],
        ["budget: an accuracy that fell too far is let through", "let gate = Gate { max_drop: self.options.max_drop, ..ANY };", "let gate = ANY;"],
        ["budget: what has learnt learns again", "if shown.is_some() {", "if false {"],
        ["budget: what has learnt and was not judged learns again", "!self.file(form, round).is_some_and(|file| file.is_file())", "true"],
    ]},
    Target { file: "crates/penjing/src/costs.rs", test: "--lib costs::", mutations: &[
        ["costs: a network is told by itself in another form", "other.network != own.network", "other.name != own.name"],
        ["costs: measured again they are the same clock", "&blake3::hash(&self.to_bytes())", "&blake3::hash(b\"\")"],
        ["costs: another way's networks judge themselves", "let factors = factors(others(own), at);", "let factors = factors(timed.iter(), at);"],
        ["costs: every kind takes so many times as long", "self.mean * self.kinds.get(kind).unwrap_or(&1.0)", "self.mean"],
        ["costs: another way's threads are not looked at", "costs.ways.iter().map(|way| way.threads).chain([costs.threads])", "[costs.threads].into_iter()"],
        ["costs: terms below nothing", "/ h[i][i]).max(0.0);", "/ h[i][i]);"],
        ["costs: a network judges itself", ".filter(|other| other.network != own.network)", ""],
        ["costs: another version's are read", "version.format != FORMAT || version.penjing != own", "version.format != FORMAT"],
        ["costs: times below nothing are read", "(0.0..=MOST).contains(&value)", "(f64::NEG_INFINITY..=MOST).contains(&value)"],
    ]},
    Target { file: "crates/penjing-runtime/src/load.rs", test: "-p penjing --lib costs::", mutations: &[
        ["costs: the convolution before is left out", "before.0 + after.0", "after.0"],
        ["costs: windows without their channels", "macs(&[window.out_pixels(), window.taps(), channels])", "macs(&[window.out_pixels(), window.taps()])"],
    ]},
    Target { file: "crates/penjing/src/compress/sparsify.rs", test: "--lib --test sparsify -- sparsify zero sparse", mutations: &[
        ["sparse: by magnitude", "w * w / inverse[at % each]", "f64::from(weights[at]).powi(2) + 0.0 * w * inverse[at % each]"],
        ["sparse: what is left is not fitted", "w[at] = value as f32;", "w[at] = whole[0] as f32 * 0.0 + value.signum() as f32;"],
        ["sparse: the bias keeps what went", "*bias = (f64::from(mean) - moved) as f32;", "*bias += 0.0 * (f64::from(mean) - moved) as f32;"],
        ["sparse: zeros come back", "filter(|(_, stay)| !**stay)", "filter(|(_, stay)| **stay)"],
        ["sparse: layers in groups too", "conv.kernel == [1, 1]) && !in_groups(node)", "conv.kernel == [1, 1])"],
        ["sparse: what no file can leave out is looked for", "any(|shape| Sparse::fit(shape))", "any(|_| true)"],
    ]},
    Target { file: "crates/penjing-kernels/src/sparse.rs", test: "--lib sparse", mutations: &[
        ["sparse kernel: groups of a pair not as many", "pair[1].0 = pair[0].0;", ""],
        ["sparse kernel: what fills a group up multiplies", "let mut bytes = [0; GROUP];", "let mut bytes = [0; GROUP];\n            values[at * GROUP..][..groups.min(1)].fill(1.0);"],
        ["sparse kernel: channels are not checked", "assert!(wrong == 0, \"from `pack`\");", ""],
        ["sparse kernel: pairs are not checked", "&& pairs, \"from `pack`\"", ", \"from `pack`\""],
        ["sparse kernel: channels of the next chunk are let through", "(CHUNK - chunk(k)) as u8", "(chunk(k) - chunk(k)) as u8"],
        ["sparse kernel: of few pixels as many zeros pay", "if m < MANY_PIXELS { DEARER }", "if m < 1 { DEARER * MANY_PIXELS }"],
    ]},
    Target { file: "crates/penjing-kernels/src/arch/sparse.rs", test: "--lib sparse", mutations: &[
        ["sparse kernel: the activation before the residual", "let last = chunk + 1 == chunks && job.residual.is_none();", "let last = chunk + 1 == chunks;"],
        ["sparse kernel: squares at the edge left out", "while row < rows {", "while row + S::LANES <= rows {"],
    ]},
    Target { file: "crates/penjing-runtime/src/sparse.rs", test: "--lib --test model_file -- sparse zeros values", mutations: &[
        ["file without zeros: the highest bit first", "<< at)", "<< (7 - at))"],
        ["file without zeros: as many values as may be", "&& count == self.values.len()", ""],
    ]},
    Target { file: "crates/penjing/src/compress/prune/mod.rs", test: "--lib --test prune -- prune pruned goes step", mutations: &[
        ["pruning in steps: the first takes all", "1.0 - (1.0 - share).powf(f64::from(step) / f64::from(steps))", "share"],
        ["pruning in steps: states overwrite each other", "if step == steps { last.to_owned() }", "if true { last.to_owned() }"],
        ["pruning: what is fitted judges", "            judges.push(input);\n        } else {", "            judges.push(input.clone());\n        }\n        {"],
    ]},
    Target { file: "crates/penjing/src/transfer/paired.rs", test: "--lib transfer", mutations: &[
        ["grouping: alike photos tell each their own", "gains.for_each(|(gain, group)| *sums.entry(group)", "gains.enumerate().for_each(|(photo, (gain, _))| *sums.entry(photo)"],
    ]},
    Target { file: "crates/penjing/src/transfer/mirrors.rs", test: "--lib transfer::mirrors", mutations: &[
        ["grouping: alike photos blame a mirror each", "lost.zip(groups.iter().copied())", "lost.zip(0..groups.len())"],
    ]},
    Target { file: "crates/penjing/src/compress/prune/blocks.rs", test: "--lib --test prune -- prune block random_graphs", mutations: &[
        ["pruning: a block of which others read", "(works && fits && inside.iter().all(stays_inside))", "(works && fits)"],
        ["pruning: who stands in for a block is read elsewhere", "if !users[start.index()].iter().all(|user| block.holds(*user)) {", "if false {"],
    ]},
    Target { file: "crates/penjing/src/compress/prune/cut.rs", test: "--lib --test prune -- prune block random_graphs", mutations: &[
        ["pruning: behind a block its input is read no more", "places.push(places[block.start().index()]);", "places.push(*places.last().unwrap_or(&id));"],
    ]},
    Target { file: "crates/penjing/src/compress/prune/mend.rs", test: "--lib prune", mutations: &[
        ["pruning: biases forget what weights moved", "shift -= moved * f64::from(*mean);", "shift -= 0.0 * moved * f64::from(*mean);"],
        ["pruning: nobody stands in for a block", "for end in self.stands_in_for(id) {", "for end in self.stands_in_for(id).take(0) {"],
    ]},
    Target { file: "crates/penjing/src/compress/storage.rs", test: "--lib compress", mutations: &[
        ["4 bits: layers in groups too", "!in_groups(node) && weight.is_some_and", "weight.is_some_and"],
    ]},
    Target { file: "crates/penjing-runtime/src/nibbles.rs", test: "--lib nibbles", mutations: &[
        ["4 bits: halves of a byte swapped", "half(0) | half(1) << 4", "half(1) | half(0) << 4"],
    ]},
    Target { file: "crates/penjing/src/compress/ptq.rs", test: "--lib compress", mutations: &[
        ["int8: biases corrected the wrong way", "*bias += moved", "*bias -= moved"],
        ["int8: scales without room for biases", "peak(row).max(bias.abs() / (x.scale * LARGEST_BIAS)).max(least)", "peak(row)"],
    ]},
    Target { file: "crates/penjing/src/train/tape/round.rs", test: "--lib --test train --test qat -- tape::round fake_quant the_tape", mutations: &[
        ["fake quantization: gradients of what was cut off too", "if (low..=high).contains(x) { *de } else { 0.0 }", "*de"],
        ["fake quantization: results as they are", "convert::dequantize(isa, quant.scale, quant.zero_point, bytes, y);",
            "y.copy_from_slice(x);"],
    ]},
    Target { file: "crates/penjing/src/train/tape/plan.rs", test: "--test train --test qat -- fake_quant the_tape", mutations: &[
        ["fake quantization: rounded behind the activation only", "self.only_user(id).filter(|_| self.graph.node(id).quant.is_none())",
            "self.only_user(id)"],
    ]},
    Target { file: "crates/penjing/src/train/learner.rs", test: "--test qat", mutations: &[
        ["quantization-aware training: weights as they are", "let computed_with = projected.as_ref().unwrap_or(&self.parameters);",
            "let computed_with = projected.as_ref().filter(|_| false).unwrap_or(&self.parameters);"],
    ]},
    Target { file: "crates/penjing/src/compress/qat.rs", test: "--test qat", mutations: &[
        ["quantization-aware training: begins with rounded weights", "filter(|_| matches!(tensor.data, Data::I8(_)))",
            "filter(|_| false)"],
    ]},
    Target { file: "crates/penjing/src/compress/equalize.rs", test: "--lib compress", mutations: &[
        ["equalizing: the bias left as it was", "map(|(v, f)| v / f)", "map(|(v, _)| *v)"],
    ]},
    Target { file: "crates/penjing/src/hub/mod.rs", test: "--test hub", mutations: &[
        ["pull: the recorded hash is not enforced", "Some(recorded), _) if recorded != sha256",
            "Some(recorded), _) if recorded.is_empty()"],
        ["pull: the verified hash is not enforced", "(Some(verified), ..) if verified != sha256",
            "(Some(verified), ..) if verified.is_empty()"],
        ["pull: the hub's hash is not looked at", "Some(said)) if said != sha256", "Some(said)) if said.is_empty()"],
        ["pull: weights in the cache are believed", "(&sha256, bytes) == (&record.sha256, record.bytes)", "true"],
        ["pull: pixels of the network's table", "model.pixels = source.pixels(model.pixels);", ""],
        ["pull: two processes at once", "match file.try_lock() {", "match Ok(()) {"],
    ]},
    Target { file: "crates/penjing/src/hub/download.rs", test: "--test hub", mutations: &[
        ["pull: another part of the file is taken for the rest", "answer.part() != Some((there, note.bytes)) || !same",
            "!same"],
        ["pull: what the server asks to wait is ignored", ".max(asked.unwrap_or_default())", ""],
        ["pull: pauses do not grow", ".saturating_mul(1 << (tried - 1).min(16))", ""],
        ["pull: 404 is tried again", "429 | 500 | 502 | 503 | 504 => Trouble::Passing {",
            "404 | 429 | 500 | 502 | 503 | 504 => Trouble::Passing {"],
        ["pull: the wish to stop is not heard while bytes are awaited",
            "        loop {\n            if progress.cancelled() {", "        loop {\n            if false {"],
    ]},
    Target { file: "crates/penjing/src/hub/http.rs", test: "--test hub", mutations: &[
        ["pull: a changed file is continued", ".header(\"If-Range\", tag)", ""],
        ["pull: silence is waited for", ".timeout_per_read(Some(request.silence))", ""],
    ]},
    Target { file: "crates/penjing/src/hub/answer.rs", test: "--lib hub::", mutations: &[
        ["pull: from encryption to none", " && !open)", ")"],
    ]},
    Target { file: "crates/penjing/src/data/decode.rs", test: "--test decode", mutations: &[
        ["reduced scale: of a photo that lies on its side", "if turned { pixels.reduction(h, w) }",
            "if turned { pixels.reduction(w, h) }"],
        ["orientation tag ignored", "upright.apply_orientation(orientation);", ""],
    ]},
    Target { file: "crates/penjing/src/data/jpeg.rs", test: "--lib --test decode -- jpeg pillow limits no_photo", mutations: &[
        ["reduced scale: one step further", "try_new(1, by as u32)", "try_new(1, (2 * by).min(8) as u32)"],
        ["channel order: photos decoded as BGR", "PixelFormat::Rgb }", "PixelFormat::Bgr }"],
        ["CMYK: black is no ink", "black.saturating_sub(", "255_u8.saturating_sub("],
        ["a photo that ends early is shown in part", "if !is_complete(bytes) {", "if false {"],
        ["the sides of a JPEG the wrong way round", "[[left, right], [high, low]]", "[[high, low], [left, right]]"],
    ]},
    Target { file: "crates/penjing/src/data/split.rs", test: "--lib data::split", mutations: &[
        ["grouping: folds deal single photos", "assert!(k > 0, \"at least one fold\");",
            "let groups = &(0..groups.len()).collect::<Vec<_>>()[..];"],
        ["grouping: the hold-out takes single photos", "fraction: f64, seed: u64) -> Vec<bool> {",
            "fraction: f64, seed: u64) -> Vec<bool> { let groups = &(0..groups.len()).collect::<Vec<_>>()[..];"],
        ["grouping: names of groups ignored",
            "if let Some(name) = &sample.group {", "if let Some(name) = sample.group.as_ref().filter(|_| false) {"],
        ["grouping: copies of a photo not joined", "sets.join(first, i);", ""],
    ]},
    Target { file: "crates/penjing/src/transfer/survey.rs", test: "--lib transfer::survey", mutations: &[
        ["photos that judge are learnt from", "judges[photo] == held)", "!held || judges[photo])"],
        ["every round holds out the same photos", "map(|&of| of == fold)", "map(|&of| of == held_out[0])"],
        ["a round may leave a class nothing to learn from", "if learnt.contains(&false) {", "if false {"],
        ["grouping: training asks for folds of single photos",
            "folds(&classes, groups,", "folds(&classes, &(0..kept.len()).collect::<Vec<_>>(),"],
        ["grouping: training holds out single photos",
            "holdout(&classes, groups,", "holdout(&classes, &(0..kept.len()).collect::<Vec<_>>(),"],
    ]},
    Target { file: "crates/penjing/src/transfer/survey.rs", test: "--lib transfer::tests", mutations: &[
        ["photos of the test part are learnt from",
            "filter(|sample| sample.part != Part::Test)", "filter(|_| true)"],
    ]},
    Target { file: "crates/penjing/src/transfer/features.rs", test: "--lib transfer::features", mutations: &[
        ["second view plain", "let flip = view % 2 == 1;", "let flip = view > 2 && view % 2 == 1;"],
        ["fresh features not rounded as cached ones", "round_to_stored(&mut row);", ""],
    ]},
    Target { file: "crates/penjing/src/transfer/cache.rs", test: "--lib transfer::cache", mutations: &[
        ["cache: check bytes ignored", "(check(body) == *stored).then_some(body)", "Some(body)"],
    ]},
    Target { file: "crates/penjing-kernels/src/update.rs", test: "--lib update::", mutations: &[
        ["momentum: the velocity forgets", "*velocity = momentum * *velocity + d;", "*velocity = d;"],
        ["AdamW: mean gradient not corrected", "let size = (lr / gained(beta1)) as f32;", "let size = lr as f32;"],
    ]},
    Target { file: "crates/penjing-kernels/src/depthwise.rs", test: "--lib depthwise::tests::gradients", mutations: &[
        ["depthwise weight gradient without the left border", "let dw = dw.row(ky * w.kernel_w + kx);",
            "if ox == 0 { continue; } let dw = dw.row(ky * w.kernel_w + kx);"],
    ]},
    Target { file: "crates/penjing-kernels/src/arch/depthwise.rs", test: "--lib depthwise::", mutations: &[
        ["depthwise: the last channels left out", "while channels.end < c {", "while channels.end + block <= c {"],
    ]},
    Target { file: "crates/penjing-kernels/src/arch/x86_64.rs", test: "--lib resample::", mutations: &[
        ["resizing: the low half of a weight without its sign", "let w = _mm256_add_epi32(w, carry);", ""],
    ]},
    Target { file: "crates/penjing-kernels/src/arch/depthwise_weights.rs", test: "--lib depthwise::tests::gradients", mutations: &[
        ["fast depthwise weight gradient without the right border",
            "border::<S, K, STRIDE, ROWS>(&line, inner.end..w.out_w, &mut sums);", ""],
        ["depthwise weight gradient without the last row of a block",
            "rows.min(top + step),", "rows.min(top + step - 1),"],
    ]},
    Target { file: "crates/penjing-kernels/src/arch/product.rs", test: "--lib pointwise::", mutations: &[
        ["product: the first tiles count once more", "row += tall * count;", ""],
        ["product: a vector cut short takes no residual",
            "sum = S::add(sum, get::<S>(from_residual.add(at), n));", ""],
    ]},
    Target { file: "crates/penjing/src/train/tape/norm.rs", test: "--test train gradients_of_every_operation", mutations: &[
        ["gradient through the batch's variance: other sign",
            "let b = -a * s2 * inverse / pixels as f64;", "let b = a * s2 * inverse / pixels as f64;"],
    ]},
    Target { file: "crates/penjing/src/train/tape/layer.rs", test: "--test train gradients_of_every_operation", mutations: &[
        ["gradient of γ under frozen statistics: mean added",
            "f64::from(bias[c])) - f64::from(mean[c]);", "f64::from(bias[c])) + f64::from(mean[c]);"],
    ]},
    Target { file: "crates/penjing/src/train/tape/mod.rs", test: "--test train gradients_of_every_operation", mutations: &[
        ["running statistics: momentum for what is kept", "*running += momentum * (", "*running += (1.0 - momentum) * ("],
        ["running variance biased", "(norm.var, var, unbiased)", "(norm.var, var, 1.0)"],
    ]},
    Target { file: "crates/penjing/src/train/tape/mod.rs", test: "--lib train::tape::tests::what_is_computed_again", mutations: &[
        ["what is computed again is not", "run.layer_again(layer, state, arena);", ""],
    ]},
    Target { file: "crates/penjing/src/train/tape/layer.rs", test: "--test train gradients_of_every_operation", mutations: &[
        ["sums of a gradient: none from a dense window", "partial.sum(self, job, dx, image * in_len);", ""],
    ]},
    Target { file: "crates/penjing/src/train/tape/bands.rs", test: "--lib train::tape::bands", mutations: &[
        ["bands: padding of the first rows everywhere",
            "pad_top: (window.pad_top + input.start).saturating_sub(output.start * window.stride_h),",
            "pad_top: window.pad_top,"],
        ["bands: kept rows stay where they were",
            "self.values.copy_within(kept * self.len..self.rows.len() * self.len, 0);", ""],
        ["bands: a row of the gradient forgotten too early", "(row + window.pad_top + 1)", "(row + window.pad_top + 2)"],
    ]},
    Target { file: "crates/penjing/src/train/optimizer.rs", test: "--lib train::optimizer", mutations: &[
        ["weight decay on biases and γ",
            "let decay = if parameter.kind == Kind::Weight { self.decay } else { 0.0 };", "let decay = self.decay;"],
        ["clipping by the square of the norm", "clip) / (norm + 1e-6)", "clip) / (norm * norm + 1e-6)"],
        ["clipping: what is frozen counts in the norm",
            "if moves(gradient, memory) { update::square_sum(gradient) } else { 0.0 }", "update::square_sum(gradient)"],
        ["rates: the first third learns like the last", "0 => rates.first,", "0 => rates.last,"],
    ]},
    Target { file: "crates/penjing/src/train/schedule.rs", test: "--lib train::schedule", mutations: &[
        ["warm-up begins at 0", "(step + 1) as f64 / (warm + 1) as f64", "step as f64 / warm as f64"],
    ]},
    Target { file: "crates/penjing/src/train/ema.rs", test: "--lib train::ema", mutations: &[
        ["moving average off by one", "1.0 / (self.updates as f64 + 1.0)", "1.0 / self.updates as f64"],
    ]},
    Target { file: "crates/penjing/src/train/loss.rs", test: "--lib train::loss", mutations: &[
        ["label smoothing takes the class's own share", "row[class] += 1.0 - smoothing;", "row[class] = 1.0 - smoothing;"],
    ]},
    Target { file: "crates/penjing/src/train/tape/simple.rs", test: "--lib train::tape::tests::dropout", mutations: &[
        ["dropout: other values on the way back",
            "self.drop_out(*rate, image, de, dx)", "self.drop_out(*rate, image + 1, de, dx)"],
        ["dropout alike for all images of a batch", "<< 32 | image as u64", "<< 32"],
    ]},
    Target { file: "crates/penjing/src/train/learner.rs", test: "--lib train::learner", mutations: &[
        ["gradients of a batch's parts summed, not averaged",
            "self.slope.iter_mut().for_each(|slope| *slope /= micros as f32);", ""],
    ]},
    Target { file: "crates/penjing-cli/src/commands/classify.rs", test: "--test penjing verbs::every_verb", mutations: &[
        ["photos are decoded at full scale in use", "decode::read_for(path, &limits, classifier.pixels())?",
            "decode::read(path, &limits)?"],
    ]},
    Target { file: "crates/penjing/src/transfer/features.rs", test: "-p penjing-cli --test penjing verbs::every_verb", mutations: &[
        ["photos are decoded at full scale for features", "decode::decode_for(&bytes, &limits, self.runner.pixels())",
            "decode::decode(&bytes, &limits)"],
    ]},
    Target { file: "crates/penjing/src/train/feed.rs", test: "--lib train::feed", mutations: &[
        ["photos are decoded at full scale while training", "read_for(&self.photos[place].path, &Limits::default(), &self.pixels)?",
            "read(&self.photos[place].path, &Limits::default())?"],
        ["every epoch in the same order", "(self.seed ^ ORDER).next_u64() ^ epoch)", "(self.seed ^ ORDER).next_u64())"],
    ]},
    Target { file: "crates/penjing/src/train/checkpoint.rs", test: "--lib train::checkpoint", mutations: &[
        ["checkpoint: hash not checked", "if hash != blake3::Hash::from_bytes(stated) {", "if false {"],
        ["checkpoint of other work is taken", "if !other.is_empty() {", "if false {"],
    ]},
    Target { file: "crates/penjing/src/train/trainer.rs", test: "-p penjing-cli --test penjing unfinished::a_killed", mutations: &[
        ["resume: the optimizer has forgotten", "optimizer.restore(standing.step, parameters, &mut tensors)?;", ""],
        ["resume: photos look as in the first epoch", "self.feed.fill(&pixels, first / self.per_epoch, ", "self.feed.fill(&pixels, 0, "],
    ]},
    Target { file: "crates/penjing/src/train/trainer.rs", test: "--lib train::trainer", mutations: &[
        ["a loss that is no number is learnt from", "if !loss.is_finite() {", "if false {"],
        ["resume: the network takes small photos again", "recipe.size_in(epoch))?;", "recipe.size_in(0))?;"],
        ["photos that have grown go into the small network", "if ahead.is_some() && pixels_ahead != pixels {", "if false {"],
        ["the weights stand for their average", "let average = self.score(self.ema.parameters())?;",
            "let average = self.score(&self.learner.parameters)?;"],
    ]},
    Target { file: "crates/penjing/src/transfer/calibration.rs", test: "--lib transfer::calibration", mutations: &[
        ["temperature: no doubt about few photos", "sharpness) + doubt * above", "sharpness)"],
    ]},
    Target { file: "crates/penjing/src/transfer/plan.rs", test: "--lib transfer::plan", mutations: &[
        ["mirrored photos that led astray are learnt from", "augment.flip && self.mirrors", "augment.flip"],
        ["layers kept though the features do not fit", "0..FEW_STEPS if !self.is_far() => Some(0.3)", "0..FEW_STEPS => Some(0.3)"],
        ["few photos that the head tells apart train the network", "self.photos < FEW && self.is_near()", "false"],
        ["few photos make few steps", "self.photos < FEW_STEPS && !few => SMALL_BATCH", "self.photos < FEW_STEPS && !few => BATCH"],
        ["photos that the features fit are seen small", "!few && !self.is_near()).then", "!few).then"],
        ["a layer too many kept", "before >= share * all;", "before > 0.0 && before >= share * all;"],
    ]},
    Target { file: "crates/penjing/src/transfer/head.rs", test: "--lib transfer::head", mutations: &[
        ["grouping: alike photos choose a head each", "map(|&photo| groups[photo as usize])", "map(|&photo| photo as usize + 0 * groups.len())"],
        ["views: what chance explains counts", ".beyond(2.0)", ".beyond(1.0)"],
    ]},
    Target { file: "crates/penjing/src/transfer/finetune.rs", test: "--lib transfer::finetune", mutations: &[
        ["very many photos are never mirrored", "left > 1 || (asked.is_none() && made == 1)", "left > 1"],
        ["what was judged goes on as fast as it began", "rates: recipe.rates.scaled(SLOWER), ", ""],
        ["few epochs do not show all photos once", "(epochs * ONWARD).max(epochs.min(1.0))", "epochs * ONWARD"],
    ]},
    Target { file: "crates/penjing/src/transfer/finetune.rs", test: "-p penjing-cli --test penjing unfinished::ctrl_c", mutations: &[
        ["Ctrl-C loses what was judged", "made = tuning.mean_judged(choice)?;", "return Err(Error::Interrupted);"],
    ]},
    Target { file: "crates/penjing/src/compress/budget/state.rs", test: "--test budget -- interrupted", mutations: &[
        ["budget: a class of another name is the same", "let class = &data.classes[sample.class];", "let class = sample.class;"],
        ["budget: photos are known by their names", ".update(hash);", ".update(&hash[..0]);"],
        ["budget: any clock goes on from another's", "ground.clock.identity()", "ground.clock.name()"],
    ]},
    Target { file: "crates/penjing/src/compress/mod.rs", test: "--test qat", mutations: &[
        ["int8: learns where the file is too large anyway", "let hopeless = best.verdict.is_hopeless(&options.gate);", "let hopeless = false;"],
        ["int8: pixels are as dark and as bright as those watched", "input.widen(model.pixels.range());", "input.widen([0.0; 2]);"],
    ]},
    Target { file: "crates/penjing/src/compress/grid.rs", test: "--lib compress::grid", mutations: &[
        ["int8: a BatchNorm before a ReLU is rounded apart", "Op::Add | Op::BatchNorm { .. })", "Op::Add)"],
        ["int8: a map of classes is rounded", ".or_else(|| class_map(graph))", ""],
    ]},
    Target { file: "crates/penjing/src/compress/judge.rs", test: "--lib compress::judge", mutations: &[
        ["compression: what is no number is nearest", "far.is_nan()", "far.is_infinite()"],
    ]},
    Target { file: "crates/penjing-runtime/src/graph.rs", test: "--lib graph", mutations: &[
        ["files of zeros stand for any number of weights", "if values > MAX_VALUES as u64", "if values > u64::MAX - 1"],
    ]},
    Target { file: "crates/penjing/src/compress/gate.rs", test: "--lib gate", mutations: &[
        ["gate: what is just allowed is refused", "drop > self.max_drop + 1e-9", "drop > self.max_drop"],
        ["gate: a longer file than was judged is written", "self.missed = self.misses(gate);", ""],
    ]},
    Target { file: "crates/penjing/src/train/speed.rs", test: "--lib transfer::work", mutations: &[
        ["--time: all epochs take as long", "share * self.early + (1.0 - share) * self.full", "self.full"],
    ]},
    Target { file: "crates/penjing/src/transfer/work.rs", test: "--lib transfer::work", mutations: &[
        ["fine-tuning: the last round alone goes on", "1.0 / (others + 1) as f32", "1.0 + 0.0 * others as f32"],
    ]},
    Target { file: "crates/penjing/src/transfer/work.rs", test: "-p penjing-cli --test penjing unfinished::what_was", mutations: &[
        ["resume: what was found out about mirrored photos is lost",
            "probed: kept.probed.map(<[_]>::to_vec),", "probed: kept.probed.map(|_| Vec::new()),"],
    ]},
    Target { file: "crates/penjing/src/import/assemble.rs", test: "--lib import::assemble", mutations: &[
        ["import: OIHW taken for OHWI",
            "(o * channels + c) * taps + tap", "(o * taps + tap) * channels + c"],
    ]},
    Target { file: "crates/penjing/src/classifier.rs", test: "--lib classifier::", mutations: &[
        ["temperature ignored", "z / self.temperature", "z / 1.0"],
        ["a frame counts as if it were alone", "self.share * (p - *mean)", "(p - *mean)"],
    ]},
    Target { file: "crates/penjing/src/data/frames.rs", test: "--lib data::frames", mutations: &[
        ["a frame that lost its end takes the next along", "Markers::START if begun => return", "Markers::START if false => return"],
    ]},
    Target { file: "crates/penjing-runtime/src/lower.rs", test: "--test ops", mutations: &[
        ["BatchNorm epsilon left out of folding", "f64::from(var[c]) + f64::from(eps)", "f64::from(var[c])"],
        ["activation dropped when fused", "fused.act = act;", ""],
        ["average pool always counts padding",
            "let include_pad = pool.count_include_pad;", "let include_pad = true;"],
    ]},
    Target { file: "crates/penjing-runtime/src/lower.rs", test: "--test lowering random", mutations: &[
        ["residual added before it is computed", "if self.is_there(other) {", "if other != id {"],
    ]},
    Target { file: "crates/penjing-runtime/src/pixels/mod.rs", test: "--test pixels", mutations: &[
        ["channel order: red and blue swapped in normalization",
            "[red[usize::from(v[0])], green[usize::from(v[1])], blue[usize::from(v[2])]]",
            "[red[usize::from(v[2])], green[usize::from(v[1])], blue[usize::from(v[0])]]"],
        ["mean added in normalization", "(v as f32 - self.mean[c])", "(v as f32 + self.mean[c])"],
        ["crop off by one where the surplus is odd",
            "Some(surplus) => (half_even(surplus),", "Some(surplus) => (surplus / 2,"],
        ["mirrored view not mirrored", "if view.flip {", "if false {"],
    ]},
    Target { file: "crates/penjing-kernels/src/resample.rs", test: "-p penjing-runtime --test pixels", mutations: &[
        ["resizing with one bit less", "32 - 8 - 2;", "32 - 8 - 3;"],
    ]},
    Target { file: "crates/penjing-runtime/src/pixels/resize.rs", test: "--test pixels", mutations: &[
        ["bicubic kernel of -3/4", "const A: f64 = -0.5;", "const A: f64 = -0.75;"],
        ["gray: weights of red and blue swapped",
            "u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471",
            "u32::from(b) * 19595 + u32::from(g) * 38470 + u32::from(r) * 7471"],
        ["gray: cut, not rounded", " + 0x8000) >> 16", ") >> 16"],
    ]},
    Target { file: "crates/penjing-runtime/src/file.rs", test: "--test model_file", mutations: &[
        ["model file: hash not checked", "check_hash(bytes, &version.hash)?;", ""],
    ]},
];
