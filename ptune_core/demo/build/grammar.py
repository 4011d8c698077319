"""Writes short reviews in everyday English, each with a known polarity (True: praise, False: blame).

`Grammar.review` joins one to three sentences. A sentence is a whole clause of a topic, a judgement of one of its
aspects, a judgement of the thing itself, or a general remark; negation, contrast and concession combine them in such a
way that the polarity of the whole stays known (after "but", the last word counts).
"""

import random
import re
from collections.abc import Callable

from ptune_core.demo.build.lexicon import Aspect, Lexicon, Topic, expand, load_lexicon
from ptune_core.demo.build.surface import article, finish, join_list

INTENSIFIERS = (
    "very|really|so|extremely|incredibly|absolutely|quite|pretty|rather|truly|totally|completely|just|always|"
    "surprisingly|particularly|remarkably|simply|genuinely|wonderfully"
).split("|")
BLAME_INTENSIFIERS = "a bit|far too|way too|too|utterly|awfully|terribly|painfully|unbelievably|downright".split("|")
NOT_BE = ["is not", "was not", "isn't", "wasn't"]
NOT_WAS = ["wasn't", "was not", "isn't"]
SHORT_MADE = ["made", "done", "organised", "designed", "run"]
MADE = ["made", "done", "handled", "explained", "put together", "organised", "cooked", "written"]
OWNERS = ["the", "the", "the", "the", "my", "our", "their", "this"]
PERSONS = ["I", "I", "I", "we", "my wife and I", "my friends and I"]


class Grammar:
    """Draws reviews from the lexicon with one random generator."""

    def __init__(self, seed: int, lexicon: Lexicon | None = None) -> None:
        self.rng = random.Random(seed)
        self.lex = lexicon or load_lexicon()
        self.topic: Topic = self.lex.topics[0]
        self.thing: tuple[str, str] = self.topic.things[0]

    def pick(self, items: list[str]) -> str:
        """One item, uniformly."""
        return self.rng.choice(items)

    def chance(self, probability: float) -> bool:
        """True with that probability."""
        return self.rng.random() < probability

    # ---- words -----------------------------------------------------------------------------------------------
    def adjective(self, positive: bool, single: bool = False) -> str:
        """A general adjective; with `single`, one that can stand before a noun."""
        for _ in range(20):
            source = self.lex.wide if self.chance(0.15) else self.lex.adjectives
            word = self.pick(source[positive])
            if not single or " " not in word:
                return word
        return "good" if positive else "bad"

    def strong(self, word: str, positive: bool) -> str:
        """Perhaps an intensifier before a one-word adjective."""
        if " " in word or self.chance(0.55):
            return word
        if not positive and self.chance(0.4):
            return f"{self.pick(BLAME_INTENSIFIERS)} {word}"
        return f"{self.pick(INTENSIFIERS)} {word}"

    def described(self, positive: bool) -> str:
        """One to three general adjectives as a predicate."""
        count = self.rng.choices([1, 2, 3], [6, 3, 1])[0]
        if count == 1:
            return self.strong(self.adjective(positive), positive)
        words = list(dict.fromkeys(self.adjective(positive, single=True) for _ in range(count)))
        return join_list(words)

    # ---- aspects ---------------------------------------------------------------------------------------------
    def aspect_noun(self, aspect: Aspect) -> tuple[str, str]:
        """A noun of the aspect and the verb form for it."""
        noun = self.pick(aspect.nouns)
        if noun.endswith("~"):
            return noun[:-1], self.pick(["were", "were", "are", "seemed", "looked", "felt"])
        return noun, self.pick(["was", "was", "was", "is", "is", "seemed", "felt", "looked"])

    def aspect_clause(self, positive: bool) -> str:
        """A clause about one or two aspects of the topic."""
        aspect = self.rng.choice(self.topic.aspects)
        noun, verb = self.aspect_noun(aspect)
        word = self.pick(aspect.adjectives(positive))
        other = self.pick(aspect.adjectives(positive))
        owner = self.pick(OWNERS)
        roll = self.rng.random()
        if roll < 0.35:
            return f"{owner} {noun} {verb} {self.strong(word, positive)}"
        if roll < 0.45:
            return f"{owner} {noun} {verb} {word} and {other}" if word != other else f"{owner} {noun} {verb} {word}"
        if roll < 0.60:
            return self.two_aspects(positive, f"{owner} {noun} {verb} {word}")
        if roll < 0.68:
            return f"I {self.pick(['found', 'thought'])} the {noun} {self.strong(word, positive)}"
        if roll < 0.80:
            return self.negated_aspect(aspect, noun, verb, positive)
        if roll < 0.87:
            return f"{owner} {noun} {verb} so {word} that {self.event(positive)}"
        if roll < 0.94 and " " not in word:
            return f"{word} {noun}"
        general = self.adjective(positive)
        return f"{owner} {noun} {verb} {self.strong(general, positive)}"

    def two_aspects(self, positive: bool, first: str) -> str:
        """`first` and a second judgement of the same polarity."""
        aspect = self.rng.choice(self.topic.aspects)
        noun, verb = self.aspect_noun(aspect)
        return f"{first} and {self.pick(OWNERS)} {noun} {verb} {self.pick(aspect.adjectives(positive))}"

    def negated_aspect(self, aspect: Aspect, noun: str, verb: str, positive: bool) -> str:
        """Say the opposite and deny it: the soup was not hot, the waiter was never rude."""
        word = self.pick(aspect.adjectives(not positive))
        be = "were" if verb in ("were", "are") else "was"
        no = self.pick(["not", "n't", "n't", "not even", "never", "far from", "not at all", "anything but"])
        if no == "n't":
            return f"the {noun} {be}n't {word}{self.pick(['', '', ' at all', ' in the least'])}"
        return f"the {noun} {be} {no} {word}"

    # ---- the thing itself ------------------------------------------------------------------------------------
    def thing_clause(self, positive: bool) -> str:
        """A clause that judges the thing under review."""
        makers: list[Callable[[bool], str]] = [
            self.thing_is,
            self.thing_is,
            self.superlative,
            self.superlative,
            self.felt,
            self.felt,
            self.noun_phrase,
            self.denied,
            self.denied,
            self.short,
        ]
        return self.rng.choice(makers)(positive)

    def thing_is(self, positive: bool) -> str:
        """`this film is dull`, `it was really nice`, `what a lovely hotel`."""
        one, many = self.thing
        frames = [
            f"{self.pick(['this', 'the', 'that', 'my', 'our', 'my new'])} {one} {self.pick(['is', 'was'])} ",
            f"it {self.pick(['is', 'was', 'felt', 'looked', 'seemed', 'turned out'])} ",
            "it's ",
            f"everything about {self.pick(['this', 'the', 'that'])} {one} was ",
            f"I {self.pick(['found', 'thought'])} {self.pick(['it', f'this {one}'])} ",
            f"compared with other {many} it's ",
            f"the {one} I {self.pick(self.topic.did)} was ",
            f"as {many} go, this one is ",
        ]
        if self.chance(0.25):
            word = self.strong(self.adjective(positive, single=True), positive)
            start = self.pick(["what a", "this is a", "it was a", "such a", "it's a", "we had a", "a"])
            if start in ("what a", "such a"):
                word = word.split()[-1]
            return article(f"{start} {word} {one}")
        return self.pick(frames) + self.described(positive)

    def superlative(self, positive: bool) -> str:
        """`one of the best phones I have ever owned`."""
        one, many = self.thing
        word = self.pick(self.lex.superlatives[positive])
        done = self.pick(self.topic.done)
        have = self.pick(["I've ever", "I have ever", "I have", "we have ever", "I've", "we've ever"])
        tail = self.pick(["", "", "", " in years", " in a long time", " so far", " this year"])
        return self.pick(
            [
                f"one of the {word} {many} {have} {done}{tail}",
                f"this is one of the {word} {many} {have} {done}{tail}",
                f"the {word} {one} {have} {done}{tail}",
                f"this {one} was the {word} thing {have} {done}{tail}",
                f"it's {self.pick(['easily', 'probably', 'by far', 'hands down', 'without doubt'])} the {word} {one} "
                f"{self.pick(['around', 'in town', 'I know', 'out there', f'{have} {done}'])}",
                article(f"never have I {done} such a {self.adjective(positive, single=True)} {one}"),
                article(f"I have never {done} a {one} that was so {self.adjective(positive, single=True)}"),
            ]
        )

    def felt(self, positive: bool) -> str:
        """`I loved this film`, `we could not stand the hotel`."""
        one, many = self.thing
        verb = self.pick(self.lex.verbs[positive])
        plain = verb.split()[0] not in ("am", "was", "wasn't")
        person = self.pick(PERSONS) if plain else "I"
        what = [f"this {one}", f"the {one}", "it", "this", f"that {one}", f"the {one} I {self.pick(self.topic.did)}"]
        aspect = self.rng.choice(self.topic.aspects)
        what.append(f"the {self.aspect_noun(aspect)[0]}")
        return f"{person} {verb} {self.pick(what)}"

    def noun_phrase(self, positive: bool) -> str:
        """`this hotel is a gem`, `a real nightmare`."""
        noun = self.pick(self.lex.nouns[positive])
        one = self.thing[0]
        if self.chance(0.3):
            noun = f"{self.pick(['real', 'total', 'true', 'complete', 'absolute', 'little'])} {noun}"
        start = [f"this {one} is a", f"the {one} was a", "what a", "it was a", "it's a", "a", f"my {one} is a"]
        return article(f"{self.pick(start)} {noun}")

    def denied(self, positive: bool) -> str:
        """The opposite word under a negation: `it wasn't bad at all`, `far from perfect`."""
        word = self.adjective(not positive, single=True)
        one, many = self.thing
        frames = [
            f"it {self.pick(NOT_BE)} {self.pick(['', 'very', 'that', 'at all'])} {word}",
            f"the {one} {self.pick(NOT_WAS)} {word}",
            f"it's far from {word}",
            f"anything but {word}",
            f"I wouldn't call it {word}",
            f"there is nothing {word} about it",
            f"nothing about this {one} is {word}",
            f"not {word} at all",
            article(f"it's not a {word} {one}"),
            article(f"this was not a {word} {one} at all"),
            f"it was never {word}",
            f"I don't think it's {word}",
            f"nobody could call this {one} {word}",
            f"it's hardly {word}",
            f"unlike other {many} it isn't {word}",
        ]
        return re.sub(r"\s+", " ", self.pick(frames))

    def short(self, positive: bool) -> str:
        """A few words: `brilliant`, `so boring`, `beautifully made`."""
        return self.pick(
            [
                self.described(positive),
                f"{self.strong(self.adjective(positive, single=True), positive)} {self.thing[0]}",
                f"{self.pick(self.lex.adverbs[positive])} {self.pick(SHORT_MADE)}",
                f"it was {self.pick(self.lex.adverbs[positive])} {self.pick(MADE)}",
                f"how {self.adjective(positive, single=True)}",
            ]
        )

    # ---- sentences -------------------------------------------------------------------------------------------
    def event(self, positive: bool) -> str:
        """A whole clause of the topic (what happened, what somebody did)."""
        return expand(self.pick(self.topic.clauses[positive]), self.rng)

    def remark(self, positive: bool) -> str:
        """A general clause that fits every topic, or one about everyday life."""
        source = self.lex.life if self.chance(0.62) else self.lex.general
        return expand(self.pick(source[positive]), self.rng)

    def clause(self, positive: bool) -> str:
        """One clause of any kind."""
        makers = [self.event, self.aspect_clause, self.thing_clause, self.remark]
        return self.rng.choices(makers, [30, 20, 17, 33])[0](positive)

    def contrast(self, positive: bool) -> str:
        """Two clauses of opposite polarity in which the one of `positive` has the last word."""
        against, last = self.clause(not positive), self.clause(positive)
        roll = self.rng.random()
        if roll < 0.6:
            return f"{against}{self.pick(self.lex.linkers['contrast'])} {last}"
        if roll < 0.85:
            return f"{self.pick(self.lex.linkers['concede'])} {against}, {last}"
        aspect = self.rng.choice(self.topic.aspects)
        noun = self.aspect_noun(aspect)[0]
        words = [word for word in aspect.adjectives(not positive) if " " not in word] or ["other"]
        start = self.pick(["apart from", "despite", "in spite of", "except for"])
        return f"{start} the {self.pick(words)} {noun}, {last}"

    def linker(self, positive: bool) -> str:
        """A link between two clauses of the same polarity."""
        phrase = self.fits(self.lex.linkers["link"], positive)
        return f" {phrase}" if phrase[0].isalpha() else phrase

    def fits(self, phrases: list[str], positive: bool) -> str:
        """A phrase that is not marked for the other polarity (`^` praise, `~` blame)."""
        while True:
            phrase = self.pick(phrases)
            if phrase[-1] not in "^~" or (phrase[-1] == "^") == positive:
                return phrase.rstrip("^~")

    def sentence(self, positive: bool) -> str:
        """One sentence without its capital and its full stop."""
        roll = self.rng.random()
        if roll < 0.14:
            text = self.contrast(positive)
        elif roll < 0.30:
            text = f"{self.clause(positive)}{self.linker(positive)} {self.clause(positive)}"
        else:
            text = self.clause(positive)
        if self.chance(0.14):
            text = f"{self.fits(self.lex.linkers['open'], positive)} {text}"
        return text

    def review(self, positive: bool) -> str:
        """A review of one to three sentences, with the marks and slips of ordinary writing."""
        self.topic = self.rng.choice(self.lex.topics)
        self.thing = self.rng.choice(self.topic.things)
        count = self.rng.choices([1, 2, 3], [55, 32, 13])[0]
        parts = [self.sentence(positive) for _ in range(count)]
        if self.chance(0.14):
            parts.insert(0, expand(self.pick(self.lex.neutral), self.rng))
        return finish(parts, positive, self.rng)
