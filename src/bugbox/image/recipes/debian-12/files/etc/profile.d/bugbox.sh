# What an administrator needs is found without sudo, too; bugbox' own client comes last.
for dir in /usr/local/sbin /usr/sbin /sbin /run/bugbox/bin; do
    case ":$PATH:" in
        *":$dir:"*) ;;
        *) PATH="$PATH:$dir" ;;
    esac
done
unset dir
export PATH

# bash-completion is large: read it at the first Tab.
if [ -n "${BASH_VERSION-}" ] && [ -n "${PS1-}" ] && [ -r /usr/share/bash-completion/bash_completion ]; then
    _bugbox_completion() {
        . /usr/share/bash-completion/bash_completion
        unset -f _bugbox_completion
        # 124: bash looks again, for what is there now for this command.
        complete -p -- "$1" >/dev/null 2>&1 && return 124
        _completion_loader "$@"
    }
    complete -D -o bashdefault -o default -F _bugbox_completion
fi
