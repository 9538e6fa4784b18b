import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import hypothesis
from hypothesis import strategies
import numpy as np

from acme_cbo.infra import errors
from acme_cbo.scms.files import graph_files

# The same graph in every format, written by hand: U is latent.
_VARIABLES = ('A', 'U', 'C.2', 'B-b')
_EDGES = {('A', 'C.2'), ('U', 'C.2'), ('U', 'B-b'), ('C.2', 'B-b')}
_SAME = {
  '.txt': 'A\nU [latent]  # Nobody sees it.\n\nA C.2\n"U"\t"C.2"\r\n'
  'U -> B-b\nC.2,B-b\n',
  '.edges': 'A\nU [unobserved]\nA->C.2\nU , C.2\nU B-b\nC.2 -> B-b',
  '.csv': 'from,to\nA,C.2\nU [latent]\nU,C.2\nU,B-b\nC.2,B-b\n',
  '.dot': """// By hand.
    strict digraph "a name" {
      rankdir = LR; node [shape=circle, width=-.5] edge [color="#ff0000"];
      A [label="a; -> b]"];
      U [latent=true, style="dashed"]
      {A; U} -> "C.2" -> "B-b" [weight=1.5];
      subgraph cluster_0 { label = "both"; rank=same U -> "B-b" }
    }""",
  '.gv': 'digraph{A U[unobserved] "C.2"/* and\n*/A->"C.2"<-U->{"B-b"}'
  '"C.2"->"B-b"}',
  '.dagitty': 'dag {\nbb="-3,-0.5,2,1.2"\nA [exposure,pos="-1,0.5"]\n'
  'U [latent,pos="0,1"]\n{A U} -> C.2\nU -> B-b [pos="1,1"]\n'
  'B-b <- C.2\n}\n',
  '.gml': """Creator "a program"
    graph [ comment "x" directed 1 weight -1.5
      node [ id 0 label "A" graphics [ x 1 y .5 ] ]
      node [ id 7 label "U" latent 1 ]
      node [ id 2 label "C.2" ] node [ id 3 label "B-b" latent 0 ]
      edge [ source 0 target 2 ] edge [ source 7 target 2 ]
      edge [ source 7 target 3 label "e" ] edge [ source 2 target 3 ]
    ]""",
}
_BIF = """network unknown { property "made by hand" ; }
  variable A { type discrete [ 2 ] { yes, no }; }
  variable B { type discrete [ 2 ] { 0, 1 }; property x = (1, -2.5e-3) ; }
  variable C { type discrete [ 2 ] { a, b }; }
  probability ( C | A, B ) { (yes, 0) 0.1, 0.9; default 0.5, 0.5; }
  probability ( A ) { table 0.2, 0.8; }
  probability ( B | A ) { table 1e-1, 0.9, 0.4, 0.6; }
"""


def _folder(test):
  return pathlib.Path(test.enterContext(tempfile.TemporaryDirectory()))


def _edges(graph):
  return {
    (graph.variables[i], graph.variables[j])
    for j, i in np.argwhere(graph.parents)
  }


def _latent(graph):
  names = zip(graph.variables, graph.latent, strict=True)
  return [name for name, latent in names if latent]


class FormatsTest(parameterized.TestCase):
  def _read(self, text, suffix, newline=None):
    path = _folder(self) / f'graph{suffix}'
    path.write_text(text, encoding='utf-8', newline=newline)
    return graph_files.read(path)

  @parameterized.parameters(*_SAME)
  def test_the_same_graph_in_every_format(self, suffix):
    graph = self._read(_SAME[suffix], suffix)
    self.assertEqual(_edges(graph), _EDGES)
    self.assertEqual(_latent(graph), ['U'])
    self.assertCountEqual(graph.variables, _VARIABLES)
    self.assertEqual(graph.parents.shape, (4, 4))
    self.assertEqual(graph.parents.dtype, bool)

  def test_bif(self):
    graph = self._read(_BIF, '.bif')
    self.assertEqual(graph.variables, ('A', 'B', 'C'))
    self.assertEqual(_edges(graph), {('A', 'C'), ('B', 'C'), ('A', 'B')})
    self.assertEqual(_latent(graph), [])

  def test_variables_keep_the_order_of_the_file(self):
    graph = self._read('B C\nD\nA B', '.txt')
    self.assertEqual(graph.variables, ('B', 'C', 'D', 'A'))

  def test_suffixes_in_capitals_and_a_byte_order_mark(self):
    graph = self._read('\ufeffÄ ñ', '.TXT')
    self.assertEqual(graph.variables, ('Ä', 'ñ'))

  def test_lines_of_windows_and_a_header_in_quotes(self):
    graph = self._read('"Source","Target"\r\n"A","B"\r\n', '.csv', newline='')
    self.assertEqual(_edges(graph), {('A', 'B')})

  def test_a_header_is_one_of_a_csv_alone(self):
    self.assertEqual(_edges(self._read('from,to', '.txt')), {('from', 'to')})

  def test_a_word_that_dot_keeps_may_be_a_variable_of_dagitty(self):
    graph = self._read('dag { node [pos="0,0"] edge -> node }', '.dagitty')
    self.assertEqual(_edges(graph), {('edge', 'node')})

  def test_groups_on_both_sides(self):
    graph = self._read('digraph { {A B} -> {C D} -> E }', '.dot')
    self.assertEqual(
      _edges(graph),
      {(i, j) for i in 'AB' for j in 'CD'} | {('C', 'E'), ('D', 'E')},
    )

  def test_latent_may_be_said_to_be_false(self):
    graph = self._read('digraph { A [latent=false] A -> B }', '.dot')
    self.assertEqual(_latent(graph), [])


class ComplaintsTest(parameterized.TestCase):
  """One sentence: which file, which line, what would be right."""

  @parameterized.parameters(
    # Edge lists.
    ('.txt', 'A B\nA B C', r'line 2: a line holds one edge, as A -> B .*A B C'),
    ('.txt', 'A B 0.5', 'line 1: a line holds one edge'),
    ('.txt', 'A B\nC -', 'line 2: a line holds one edge'),
    ('.txt', 'A B\n"C" "D', 'line 2: a line holds one edge'),
    ('.txt', 'A B\nC [pos]', 'line 2: a line holds one edge'),
    ('.txt', 'A -- B', 'line 1: -- is an edge with no direction; write ->'),
    ('.txt', 'A <-> B', 'line 1: <-> is an edge with two directions.*latent'),
    ('.txt', 'A B\n\nB B', "line 3: 'B' is a cause of itself; remove"),
    ('.txt', 'A B\nB C\nA -> B', 'line 3: the edge A -> B of line 1 .*again'),
    ('.txt', 'A B\nB A', 'the edges go in a circle, (A -> B -> A|B -> A -> B)'),
    (
      '.txt',
      'X A\nC A\nA B\nB C\nC D',
      'circle, (A -> B -> C -> A|B -> C -> A -> B|C -> A -> B -> C); remove',
    ),
    ('.txt', '"A b" C', "line 1: 'A b' cannot name a variable; use letters"),
    ('.txt', '"" C', "line 1: '' cannot name a variable"),
    ('.txt', f'{"x" * 65} C', 'cannot name a variable; .* 64 at most'),
    ('.txt', '', 'two variables or more that are not latent, this one 0'),
    ('.txt', 'U [latent]\nU A', 'that are not latent, this one 1'),
    (
      '.txt',
      '\n'.join(f'x{j} x{j + 1}' for j in range(256)),
      "line 256: 'x256' is one variable too many; 256 can be read",
    ),
    # DOT.
    (
      '.dot',
      'graph { A -- B }',
      'line 1: digraph has to stand here, not graph',
    ),
    ('.dot', 'digraph { A -- B }', 'line 1: -- is an edge with no direction'),
    ('.dot', 'digraph {\nA -> B\n', 'line 3: .*not the end of the file'),
    ('.dot', 'digraph { A -> }', 'name of a variable has to stand here, not }'),
    ('.dot', 'digraph { A -> B } C', 'the end of the file has to .*, not C'),
    ('.dot', 'digraph { A -> B:n }', 'a variable has to stand here, not :'),
    ('.dot', 'digraph { A ->\n"B }', 'line 2: what begins with " here never'),
    ('.dot', 'digraph {\n/* A -> B }', r'line 2: what begins with /\* here'),
    ('.dot', 'digraph { A -> B [dir=both] }', 'dir=both turns an edge; write'),
    ('.dot', 'digraph { edge [dir=back] A -> B }', 'dir=back turns an edge'),
    ('.dot', 'digraph { A [latent=1] A -> B }', 'is true or false, not 1'),
    ('.dot', 'digraph { A -> B [latent] }', 'only a variable is latent'),
    ('.dot', 'digraph { {A B} [latent] }', 'only a variable is latent'),
    ('.dot', 'digraph { A [label=<b>] }', 'a number or a word has to stand'),
    (
      '.dot',
      'digraph { A [label="x" }',
      'an attribute has to stand here, not }',
    ),
    ('.dot', 'digraph ' + '{' * 40, 'at most 32 braces inside each other'),
    ('.dot', 'digraph { = B }', 'variable has to stand here, not ='),
    ('.dot', 'digraph { -> = B }', 'an attribute has to stand here, not ->'),
    ('.dot', 'digraph { subgraph { A } -> A }', "'A' is a cause of itself"),
    # DAGitty.
    ('.dagitty', 'pdag { A -> B }', 'line 1: dag has to stand here, not pdag'),
    ('.dagitty', 'dag { A <-> B }', '<-> is an edge with two directions'),
    ('.dagitty', 'dag { A -> B -> A }', 'circle, (A -> B -> A|B -> A -> B)'),
    ('.dagitty', 'dag { A @0.1 B }', 'a variable has to stand here, not @'),
    # GML.
    ('.gml', 'graph [ node [ id 0 label "A" ] ]', "has 0 fields 'directed'"),
    ('.gml', 'graph [ directed 0 ]', 'line 1: the graph has to say directed 1'),
    ('.gml', 'graph 3', 'line 1: graph needs a list in'),
    ('.gml', 'node [ ]', "line 1: what begins here has 0 fields 'graph'"),
    ('.gml', 'graph [ directed 1 node 3 ]', 'node needs a list in'),
    ('.gml', 'graph [ directed [ ] ]', 'directed needs one value, not a list'),
    (
      '.gml',
      'graph [ directed 1\nnode [ id 0 ] ]',
      "line 2: .*0 fields 'label'",
    ),
    (
      '.gml',
      'graph [ directed 1 node [ id 0 id 1 label A ] ]',
      "2 fields 'id', and needs one",
    ),
    (
      '.gml',
      'graph [ directed 1 node [ id 0 label A ]\nnode [ id 0 label B ] ]',
      'line 2: the id 0 or the label B is already taken',
    ),
    (
      '.gml',
      'graph [ directed 1 node [ id 0 label A ]\nedge [ source 0 target 1 ] ]',
      'line 2: there is no node with the id 1',
    ),
    ('.gml', 'graph [ directed 1', 'a key has to stand here, not the end'),
    ('.gml', 'graph graph', 'line 1: graph needs a list in'),
    ('.gml', 'graph ]', 'a number or a word has to stand here, not ]'),
    ('.gml', 'a [ ' * 40, 'at most 32 brackets inside each other'),
    # BIF.
    ('.bif', 'variable A { }\nvariable A { }', 'line 2: .* variable A already'),
    ('.bif', 'probability ( A ) { }', 'no variable A is declared before this'),
    (
      '.bif',
      'variable A { }\nprobability ( A | B ) { }',
      'line 2: no variable B is declared before this',
    ),
    (
      '.bif',
      'variable A { } probability (A) { }\nprobability (A) { }',
      'line 2: A has a probability already',
    ),
    ('.bif', 'variable A { } variable B { }', 'A has no probability'),
    ('.bif', 'variable A { } probability ( A B ) { }', r'\) has to .*, not B'),
    ('.bif', 'variable A\n{ { }', 'line 2: the block that begins here never'),
    ('.bif', 'variables A { }', 'network, variable or probability has to'),
  )
  def test_is_refused(self, suffix, text, sentence):
    with self.assertRaisesRegex(errors.UsageError, sentence) as caught:
      graph_files.parse(text, suffix, 'a.file')
    self.assertStartsWith(str(caught.exception), 'a.file')
    self.assertNotIn('\n', str(caught.exception))

  def test_file_that_cannot_be_read(self):
    folder = _folder(self)
    with self.assertRaisesRegex(
      errors.UsageError, r'none\.txt cannot be read: No such file'
    ):
      graph_files.read(folder / 'none.txt')
    with self.assertRaisesRegex(
      errors.UsageError, r'a\.png is of no format.*\.txt, .*\.bif'
    ):
      graph_files.read(folder / 'a.png')
    (folder / 'a.txt').mkdir()
    with self.assertRaisesRegex(errors.UsageError, 'Is a directory'):
      graph_files.read(folder / 'a.txt')

  def test_file_that_is_no_text(self):
    path = _folder(self) / 'a.txt'
    path.write_bytes(b'A B\nB \xff\n')
    with self.assertRaisesRegex(errors.UsageError, 'line 2: this is no text'):
      graph_files.read(path)

  def test_file_that_is_too_large(self):
    path = _folder(self) / 'a.txt'
    with path.open('wb') as file:
      file.truncate(10**7 + 1)
    with self.assertRaisesRegex(errors.UsageError, '10,000,000 bytes at most'):
      graph_files.read(path)

  def test_many_groups_are_refused_before_they_fill_the_memory(self):
    group = '{' + ' '.join(f'x{j}' for j in range(100)) + '}'
    text = f'digraph {{ {f"{group} -> {{A}} " * 100} }}'
    with self.assertRaisesRegex(errors.UsageError, 'x0 -> A of line 1'):
      graph_files.parse(text, '.dot', 'a.dot')
    graph = graph_files.parse(
      f'digraph {{ {{{"A " * 10**5}}} -> {{{"B " * 10**5}}} }}', '.dot', 'a'
    )
    self.assertEqual(_edges(graph), {('A', 'B')})


_WORDS = (
  'A B C A.1 "A" "x y" -> <- -- <-> , ; { } [ ] ( ) | = # // /* */ " 1 - '
  'digraph dag graph subgraph node edge strict latent latent=true directed '
  'id label source target network variable probability dir=both'
)
_PIECES = strategies.lists(
  strategies.sampled_from(['\n', *_WORDS.split()]), max_size=40
).map(' '.join)


class FuzzTest(parameterized.TestCase):
  @parameterized.parameters(*graph_files._READERS)
  def test_any_text_gives_a_graph_or_a_sentence(self, suffix):
    start = {
      '.dot': 'digraph {',
      '.gv': 'digraph {',
      '.dagitty': 'dag {',
      '.gml': 'graph [ directed 1 node [ id 1 label A ]',
      '.bif': 'variable A { } probability ( A ) { }',
    }.get(suffix, '')

    @hypothesis.settings(
      max_examples=300, deadline=None, derandomize=True, database=None
    )
    @hypothesis.given(
      strategies.sampled_from(['', start]),
      strategies.text(max_size=60) | _PIECES,
      strategies.sampled_from(['', '}', ']']),
    )
    def check(start, text, end):
      try:
        graph = graph_files.parse(f'{start} {text} {end}', suffix, 'a.file')
      except errors.UsageError as error:
        self.assertStartsWith(str(error), 'a.file')
        return
      order = graph_files.causal_order(graph.parents)
      self.assertLen(order, len(graph.variables))
      self.assertEqual(graph.latent.shape, (len(graph.variables),))

    check()

  def test_any_bytes(self):
    path = _folder(self) / 'a.txt'

    @hypothesis.settings(
      max_examples=300, deadline=None, derandomize=True, database=None
    )
    @hypothesis.given(strategies.binary(max_size=40))
    def check(content):
      path.write_bytes(content)
      try:
        graph_files.read(path)
      except errors.UsageError:
        return

    check()

  @parameterized.parameters('.txt', '.dot', '.dagitty', '.gml')
  def test_every_graph_comes_back(self, suffix):
    """Any graph that is written is read as it was."""

    @hypothesis.settings(
      max_examples=50, deadline=None, derandomize=True, database=None
    )
    @hypothesis.given(
      strategies.lists(
        strategies.from_regex(r'[A-Za-z]\w{0,5}(\.\w)?', fullmatch=True),
        min_size=2,
        max_size=8,
        unique=True,
      ),
      strategies.randoms(use_true_random=False),
    )
    def check(names, random):
      order = random.sample(names, len(names))
      pairs = [(a, b) for n, a in enumerate(order) for b in order[n + 1 :]]
      edges = [pair for pair in pairs if random.random() < 0.5]
      if suffix == '.txt':
        text = '\n'.join([*names, *(f'{a} {b}' for a, b in edges)])
      elif suffix == '.gml':
        number = {name: n for n, name in enumerate(names)}
        nodes = [f'node [ id {number[a]} label "{a}" ]' for a in names]
        arcs = [
          f'edge [ source {number[a]} target {number[b]} ]' for a, b in edges
        ]
        text = f'graph [ directed 1 {" ".join(nodes + arcs)} ]'
      else:
        quoted = [f'"{a}"' for a in names]
        arcs = [f'"{a}" -> "{b}"' for a, b in edges]
        head = 'dag' if suffix == '.dagitty' else 'digraph'
        text = f'{head} {{ {"; ".join(quoted + arcs)} }}'
      graph = graph_files.parse(text, suffix, 'a.file')
      self.assertEqual(graph.variables, tuple(names))
      self.assertEqual(_edges(graph), set(edges))

    check()


if __name__ == '__main__':
  absltest.main()
