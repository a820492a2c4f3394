#!/usr/bin/env python3
"""Makes the vocabularies and expected ids beside this file: make.py [FOLDER]. Needs tokenizers 0.23.3, sentencepiece 0.2.3, gguf, numpy.

Byte-level: BPE trained by Hugging Face's tokenizers behind each family's own pre-tokenizer, whose pattern is that of the tokenizer.json of the model
named below. SentencePiece: model_type=bpe trained by sentencepiece. Small on purpose: a few hundred merges meet every rule.
"""
import base64, io, json, os, random, sys, unicodedata

import gguf
import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..", "..")
OUT = sys.argv[1] if len(sys.argv) > 1 else HERE

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORDS = r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"   # openai-community/gpt2
LLAMA3 = CONTRACTIONS + WORDS % "{1,3}"                                                   # meta-llama/Meta-Llama-3-8B
QWEN2 = CONTRACTIONS + WORDS % ""                                                         # Qwen/Qwen2-0.5B

# name: pattern, NFC, whole words first (ignore_merges), control tokens
FAMILIES = {
    "gpt-2": (GPT2, False, False, ["<|endoftext|>"]),
    "llama-bpe": (LLAMA3, False, True, ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]),
    "qwen2": (QWEN2, True, False, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]),
}

# Article 1 of the Universal Declaration of Human Rights, first sentence, in many scripts.
SENTENCES = """All human beings are born free and equal in dignity and rights. They're endowed with reason; it's theirs, we've said, and I'll say I'd or I'm.
Tous les êtres humains naissent libres et égaux en dignité et en droits. Alle Menschen sind frei und gleich an Würde und Rechten geboren.
Todos los seres humanos nacen libres e iguales en dignidad y derechos. Todos os seres humanos nascem livres e iguais em dignidade.
Все люди рождаются свободными и равными в своем достоинстве и правах. Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια.
人人生而自由，在尊严和权利上一律平等。すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。
모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. يولد جميع الناس أحرارا متساوين في الكرامة والحقوق.
כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם. सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।
มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền.
Wszyscy ludzie rodzą się wolni i równi. Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. 😀👩‍👩‍👧 1234567890 3.14 2026-10-05 §42 ½ ² Ⅻ ٣٤ ४२
"""


def corpus():
    texts = [SENTENCES] * 20
    for path in ["LICENSE", "README.md", "kernels/rms_norm.kernel", "include/tessera/base/utf8.hpp", "src/model/bpe.cpp"]:
        texts.append(open(os.path.join(ROOT, path), encoding="utf-8").read())
    texts.append("\n\n".join(" " * n + "if x == %d:\r\n" % (10 ** n) + "\t" * n + "y  =   x" for n in range(1, 9)))
    return texts


def tricky(specials):
    """Text that the conformance set holds already, then cases for these patterns, then random mixtures."""
    rows = json.load(open(os.path.join(ROOT, "tests/model/conform/tokenizers/smollm2.json")))["rows"]
    texts = []
    for row in rows:
        try:
            texts.append(base64.b64decode(row["b64"]).decode("utf-8"))
        except UnicodeDecodeError:
            pass
    for form in ["'s", "'S", "'ſ", "'t", "'T", "'re", "'RE", "'Re", "'rE", "'ve", "'VE", "'m", "'M", "'ll", "'LL", "'lL", "'d", "'D", "'l", "'r", "'v", "’s"]:
        texts += ["we%s go" % form, form, " %s" % form, form + form + "x"]
    texts += ["1" * n for n in range(1, 11)] + ["x" + "7" * n + "y" for n in range(1, 8)] + ["١٢٣٤٥", "१२३४", "½²Ⅻ①1", "1,234,567.89", " 12 345", "a1b22c333d4444"]
    texts += [" ".join(["\n" * n, "\n " * n, " \n" * n, "\r\n" * n, " \t" * n + "x", "x" + " " * n, "a" + " " * n + "b", " " * n + "1", " " * n + "!"]) for n in (1, 2, 3)]
    texts += ["a\n\nb", "a \n b", "a\n  b", "a  \n\n  b", "!\n", "!\r\n\r\nx", " !\n\n 1", "\u00a0x\u00a0\u00a0y", "\u3000\u3000字", "\u2028x\u2029", "\u0085y", "\u200bz", "\u180ex"]
    texts += ["cafe\u0301 \u0301x e\u0301\u0323\u0300", "\u1100\u1161\u11a8\uac00\u11a8", "\u212b\u2126\u00c5", "\u0958\u0344\u0f73", "A\u030aB\u0327\u0301", "\ufb01\u2460\u1e9b\u0323", "q\u0307\u0323"]
    texts += ["\u0301" * 40, "a" + "\u0301\u0323" * 30, "👩‍👩‍👧‍👦🏳️‍🌈", "\u202eabc\u202c", "x\u0000y", "\ufeffbom", "▁ ▁▁ ▁a▁", "<0x41><0x0A>", "<0x4>", " ", "  ", "   ", "\t", "<unk>", "<s>x</s>", "▁<s>"]
    for s in specials:
        texts += [s, "a%sb" % s, " %s " % s, s + s, s[:-1], s[1:], "\n%s\n\nuser %s" % (s, s), s[:-1] + s, s + "   x", "é%s字" % s]
    dice = random.Random(7)
    parts = ["the", " the", "The", "ing", "x", "é", "e\u0301", "ß", "字", "漢字", "ひら", "한글", "ב", "ع", "ไทย", "नमस्ते", "Ж", "1", "23", "٣", "½", " ", "  ", "\n", "\r\n", "\t", "'", "'s", "'LL",
             "!", "...", "#", "-", "_", "(", "<", "|", ">", "😀", "\u0301", "\u200d", "\u00a0", "\u3000", "▁", "<|", "im_", "/"] + specials
    while len(texts) < 620:
        texts.append("".join(dice.choice(parts) for _ in range(dice.randint(1, 14))))
    return list(dict.fromkeys(texts))


def rows(texts, plain, special):
    out = []
    for text in texts:
        row = {"text": text, "plain": plain(text)}
        if special(text) != row["plain"]:
            row["special"] = special(text)
        out.append(row)
    return out


def write_rows(name, content):
    with io.open(os.path.join(OUT, name + ".jsonl"), "w", encoding="utf-8", newline="\n") as file:
        for row in content:
            file.write(json.dumps(row, ensure_ascii=True, separators=(",", ":")) + "\n")


def write_gguf(name, model, pre, tokens, types, scores=None, merges=None, more=None):
    writer = gguf.GGUFWriter(os.path.join(OUT, name + ".gguf"), "llama")
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if scores is not None:
        writer.add_token_scores(scores)
    if merges is not None:
        writer.add_token_merges(merges)
    for key, value in (more or {}).items():
        (writer.add_bool if isinstance(value, bool) else writer.add_uint32)("tokenizer.ggml." + key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def byte_level(pattern, nfc, whole_words, specials, vocab=None, merges=None):
    """Hugging Face's tokenizer of one family, trained here if no vocabulary is given."""
    tokenizer = Tokenizer(models.BPE(vocab, merges, ignore_merges=whole_words) if vocab else models.BPE(ignore_merges=whole_words))
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                                      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    if not vocab:
        tokenizer.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=900, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in specials])
    return tokenizer


def byte_level_ids(tokenizer):
    def ids(text, plain):
        tokenizer.encode_special_tokens = plain
        return tokenizer.encode(text, add_special_tokens=False).ids
    return lambda text: ids(text, True), lambda text: ids(text, False)


def make_byte_level(name):
    pattern, nfc, whole_words, specials = FAMILIES[name]
    tokenizer = byte_level(pattern, nfc, whole_words, specials)
    trained = json.loads(tokenizer.to_str())["model"]
    vocab, merges = trained["vocab"], [tuple(m) for m in trained["merges"]]
    if whole_words:   # a word that no merge makes: only looking up whole words finds it
        vocab["\u0120unmergeable"] = len(vocab)
        tokenizer = byte_level(pattern, nfc, whole_words, specials, vocab, merges)
    tokens = [None] * tokenizer.get_vocab_size()
    for text, i in tokenizer.get_vocab(with_added_tokens=True).items():
        tokens[i] = text
    types = [3 if t in specials else 1 for t in tokens]
    eos = tokens.index({"gpt-2": "<|endoftext|>", "llama-bpe": "<|eot_id|>", "qwen2": "<|im_end|>"}[name])
    write_gguf(name, "gpt2", name, tokens, types, merges=[" ".join(m) for m in merges], more={"bos_token_id": tokens.index(specials[0]), "eos_token_id": eos})
    plain, special = byte_level_ids(tokenizer)
    write_rows(name, rows(tricky(specials) + (["an unmergeable", " unmergeable", "unmergeable"] if whole_words else []), plain, special))


def words(name, text):
    return [w for w, _ in pre_tokenizers.Split(Regex(FAMILIES[name][0]), "isolated").pre_tokenize_str(text)]


def split_texts():
    """Short texts over characters of every class: where runs meet, the alternatives of the patterns differ."""
    dice = random.Random(11)
    parts = list("aZſ字あع\u0301'’ \t\n\r\u0085\u00a0\u3000\u200b9½²Ⅻ٣!-|▁😀\ue000") + ["'s", "'LL", "'re", "'Ve", "123", " '", "\r\n", "\n\n", "  "]
    return ["".join(dice.choice(parts) for _ in range(dice.randint(2, 8))) for _ in range(250)]


def mark_texts():
    """Letters, marks of many combining classes, Hangul parts; characters whose composition is excluded or goes through others."""
    dice = random.Random(13)
    marks = [chr(c) for c in range(0x300, 0x2000) if unicodedata.combining(chr(c))]
    letters = list("aAeEoOqsS ") + [chr(c) for c in range(0xc0, 0x3000) if unicodedata.decomposition(chr(c)) and "<" not in unicodedata.decomposition(chr(c))]
    hangul = list("\u1100\u1112\u1161\u1175\u11a8\u11c2가각힣")
    special = list("\u0958\u0344\u0f73\u0f75\u0f81\u212b\u2126\ufb1d\u2adc\U0001d15e\U0001d160\U000110ba")
    return ["".join(dice.choice(dice.choice([letters, marks, marks, hangul, special])) for _ in range(dice.randint(2, 12))) for _ in range(300)]


def with_types(proto, types):
    """The serialized ModelProto with other types of pieces: field 1 holds the pieces, whose fields are 1 piece, 2 score, 3 type."""
    def varint(at):
        value = shift = 0
        while True:
            value |= (proto[at] & 127) << shift
            shift += 7
            at += 1
            if proto[at - 1] < 128:
                return value, at
    out, at, i = bytearray(), 0, 0
    while at < len(proto):
        begin = at
        key, at = varint(at)
        assert key & 7 == 2, "every field of a ModelProto is length-delimited"
        size, at = varint(at)
        at += size
        out += proto[begin:at]
        if key >> 3 == 1:
            if i in types:   # a later field of the same message counts
                body = proto[at - size:at] + bytes([3 << 3, types[i]])
                out = out[:len(out) - (at - begin)] + bytes([1 << 3 | 2, len(body)]) + body
            i += 1
    return bytes(out)


def piece_types(sp, user_defined):
    def type_of(i):
        return 2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 5 if sp.is_unused(i) else 6 if sp.is_byte(i) else 4 if sp.id_to_piece(i) in user_defined else 1
    return [type_of(i) for i in range(sp.vocab_size())]


def sentence_piece_ids(sp, controls):
    """Control tokens are taken out of the text, leftmost and longest; each stretch between them is a text of its own."""
    def special(text):
        ids, stretch, at = [], 0, 0
        while at < len(text):
            found = max((c for c in controls if text.startswith(c, at)), key=len, default=None)
            if found is None:
                at += 1
                continue
            ids += sp.encode(text[stretch:at]) + [sp.piece_to_id(found)]
            at += len(found)
            stretch = at
        return ids + sp.encode(text[stretch:])
    return lambda text: sp.encode(text), special


def hugging_face(sp, types, controls):
    """The same model as Hugging Face's converter for Llama and the tokenizer.json of Llama-2-7b-hf have it."""
    vocab = {sp.id_to_piece(i): i for i in range(sp.vocab_size())}
    scores = {p: sp.get_score(i) for p, i in vocab.items() if types[i] == 1}
    merges = []
    for piece, score in scores.items():
        cuts = [(piece[:k], piece[k:]) for k in range(1, len(piece)) if piece[:k] in scores and piece[k:] in scores]
        merges += [(-score, vocab[piece], cut) for cut in sorted(cuts, key=lambda c: (vocab[c[0]], vocab[c[1]]))]
    tokenizer = Tokenizer(models.BPE(vocab, [m[2] for m in sorted(merges)], unk_token=sp.id_to_piece(sp.unk_id()), fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.add_special_tokens([AddedToken(c, special=True, normalized=False) for c in controls])
    return tokenizer


def decoded_rows(sp, types):
    """Ids in any order and the text they spell. Bytes are those of whole characters: SentencePiece writes U+FFFD for every other byte, this
    library one for each ill-formed sequence, as Unicode recommends."""
    dice = random.Random(9)
    spelled = [i for i in range(sp.vocab_size()) if types[i] not in (2, 5, 6)]
    byte_ids = [i for i in range(sp.vocab_size()) if types[i] == 6]
    content = []
    for _ in range(150):
        ids = []
        for _ in range(dice.randint(1, 10)):
            as_bytes = byte_ids and dice.random() < 0.3
            ids += [byte_ids[b] for b in dice.choice(" a\né字😀").encode()] if as_bytes else [dice.choice(spelled)]
        content.append({"ids": ids, "decoded": sp.decode(ids)})
    return content


def make_sentence_piece(name, byte_fallback, dummy_prefix, user_defined, unused):
    controls = ["[INST]", "[/INST]"]
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for text in corpus() for line in text.split("\n") if line]), model_writer=file, model_type="bpe", vocab_size=1100 if byte_fallback else 700,
        byte_fallback=byte_fallback, add_dummy_prefix=dummy_prefix, normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True,
        allow_whitespace_only_pieces=True, character_coverage=0.98, control_symbols=controls, user_defined_symbols=user_defined, minloglevel=2)
    proto = file.getvalue()
    sp = sentencepiece.SentencePieceProcessor(model_proto=proto)
    if unused:   # every seventh trained piece of several characters
        pieces = [i for i in range(sp.vocab_size()) if len(sp.id_to_piece(i)) > 1 and piece_types(sp, user_defined)[i] == 1]
        sp = sentencepiece.SentencePieceProcessor(model_proto=with_types(proto, {i: 5 for i in pieces[::7]}))
        assert sum(sp.is_unused(i) for i in range(sp.vocab_size())) == len(pieces[::7])
    types = piece_types(sp, user_defined)
    controls += ["<s>", "</s>", "<unk>"]
    tokens = [sp.id_to_piece(i) for i in range(sp.vocab_size())]
    more = {} if dummy_prefix else {"add_space_prefix": False, "add_bos_token": False}
    write_gguf(name, "llama", "default", tokens, types, scores=[sp.get_score(i) for i in range(len(tokens))], more=more)
    plain, special = sentence_piece_ids(sp, controls)
    texts = tricky(controls + user_defined)
    content = rows(texts, plain, special)
    if byte_fallback and dummy_prefix and not user_defined and not unused:
        other = hugging_face(sp, types, controls)
        hf_plain, hf_special = byte_level_ids(other)
        differ = [t for t in texts if hf_plain(t) != plain(t) or hf_special(t) != special(t)]
        print(name, "Hugging Face's tokenizers against sentencepiece:", len(texts), "texts,", len(differ), "differ", differ[:5])
    content += decoded_rows(sp, types)
    write_rows(name, content)


def main():
    os.makedirs(OUT, exist_ok=True)
    for name in FAMILIES:
        make_byte_level(name)
    write_rows("splits", [{"pre": name, "text": text, "words": words(name, text)} for name in FAMILIES for text in split_texts()])
    write_rows("composed", [{"text": text, "nfc": unicodedata.normalize("NFC", text)} for text in mark_texts()])
    make_sentence_piece("spm", True, True, [], False)
    make_sentence_piece("spm-words", True, True, ["▁▁▁", "<|user|>", "it's", "字▁"], True)
    make_sentence_piece("spm-unknown", False, False, [], False)


if __name__ == "__main__":
    main()
