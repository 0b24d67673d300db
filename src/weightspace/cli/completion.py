"""Completion scripts for bash, zsh and fish, written from the verbs and their options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from weightspace.cli.arguments import EVERYWHERE, Argument, arguments

Shell = Literal["bash", "zsh", "fish"]
Verbs = Mapping[str, tuple[Callable[..., int], str]]


def script(shell: Shell, verbs: Verbs) -> str:
    """What a shell has to read so that it completes verbs, options and their choices; files are completed as ever."""
    return _fish(verbs) if shell == "fish" else _bash(verbs, shell)


def _options(verb: Callable[..., int]) -> list[Argument]:
    known = [argument for argument in arguments(verb) if not argument.operand]
    names = {argument.name for argument in known}
    return [*known, *(argument for argument in EVERYWHERE if argument.name not in names)]


def _nexts(verbs: Verbs) -> dict[str, list[str]]:
    """Words that may follow: on nothing, on a group, and on a verb."""
    found: dict[str, list[str]] = {"": list(dict.fromkeys(name.split()[0] for name in verbs))}
    for name in verbs:
        first, *second = name.split()
        if second:
            found.setdefault(first, []).extend(second)
    for name, (verb, _) in verbs.items():
        found.setdefault(name, []).extend(f"--{argument.name}" for argument in _options(verb))
    return found


def _bash(verbs: Verbs, shell: Shell) -> str:
    """For bash, and for zsh by its own reading of such scripts."""
    words = "\n".join(f'    "{name}") words="{" ".join(some)}" ;;' for name, some in _nexts(verbs).items())
    choices = "\n".join(
        f'    "{name} --{argument.name}") words="{" ".join(argument.choices)}" ;;'
        for name, (verb, _) in verbs.items()
        for argument in _options(verb)
        if argument.choices
    )
    start = "#compdef weightspace\nautoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    how = 'source <(weightspace completion zsh)"' if shell == "zsh" else 'source <(weightspace completion bash)"'
    return f"""{start}# For this shell alone: "{how}
_weightspace() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}" verb="" words="" word
  local position=1
  while [ "$position" -lt "$COMP_CWORD" ] && [ "$position" -le 2 ]; do
    word="${{COMP_WORDS[position]}}"
    case "${{verb:+$verb }}$word" in
      {"|".join(f'"{name}"' for name in _nexts(verbs) if name)}) verb="${{verb:+$verb }}$word" ;;
      *) break ;;
    esac
    position=$((position + 1))
  done
  case "$verb" in
{words}
  esac
  case "$verb $previous" in
{choices}
  esac
  COMPREPLY=()
  if [ -n "$verb" ] && [ "${{current#-}}" = "$current" ] && [ "${{words#--}}" != "$words" ]; then
    return  # an operand or a value: files
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _weightspace weightspace"""


def _fish(verbs: Verbs) -> str:
    lines = ['# "weightspace completion fish | source"']
    groups = {name.split()[0] for name in verbs if " " in name}
    firsts = {name.split()[0]: text for name, (_, text) in verbs.items() if name.split()[0] not in groups}
    firsts |= {group: f"verbs of {group}" for group in sorted(groups) if group not in verbs}
    for name, text in firsts.items():
        lines.append(f"complete -c weightspace -n __fish_use_subcommand -a {name} -d {_quoted(text)}")
    for name, (verb, text) in verbs.items():
        first, *second = name.split()
        if second:
            seen = f"__fish_seen_subcommand_from {first}; and not __fish_seen_subcommand_from {' '.join(second)}"
            lines.append(f"complete -c weightspace -f -n {_quoted(seen)} -a {second[0]} -d {_quoted(text)}")
        condition = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in (first, *second))
        for argument in _options(verb):
            line = f"complete -c weightspace -n {_quoted(condition)} -l {argument.name} -d {_quoted(argument.help)}"
            values = f" -x -a {_quoted(' '.join(argument.choices))}" if argument.choices else " -r"
            lines.append(line + ("" if argument.kind is bool else values))
    return "\n".join(lines)


def _quoted(text: str) -> str:
    """For fish, in single quotes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
