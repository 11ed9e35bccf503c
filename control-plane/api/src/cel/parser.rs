//! Tokens to a tree, with bounded depth: whoever writes rules does not own the server's stack.

use super::{
    CompileError, MAX_DEPTH,
    ast::{Binary, Expr, Literal, Loop, Macro},
    functions::{Known, known},
    lexer::{Spanned, Token, tokens},
    value::unescape,
};

pub(super) fn parse(source: &str) -> Result<Expr, CompileError> {
    let mut parser = Parser {
        source,
        tokens: tokens(source)?,
        at: 0,
        depth: 0,
    };
    let expr = parser.expression()?;
    match parser.peek() {
        Token::End => Ok(expr),
        _ => Err(parser.error("extraneous input")),
    }
}

struct Parser<'a> {
    source: &'a str,
    tokens: Vec<Spanned>,
    at: usize,
    depth: usize,
}

/// How tightly a binary operator binds.
fn binary(token: &Token) -> Option<(Binary, u8)> {
    Some(match token {
        Token::Symbol(symbol) => match *symbol {
            "||" => (Binary::Or, 1),
            "&&" => (Binary::And, 2),
            "==" => (Binary::Equal, 3),
            "!=" => (Binary::NotEqual, 3),
            "<" => (Binary::Less, 3),
            "<=" => (Binary::LessOrEqual, 3),
            ">" => (Binary::Greater, 3),
            ">=" => (Binary::GreaterOrEqual, 3),
            "+" => (Binary::Add, 4),
            "-" => (Binary::Subtract, 4),
            "*" => (Binary::Multiply, 5),
            "/" => (Binary::Divide, 5),
            "%" => (Binary::Remainder, 5),
            _ => return None,
        },
        Token::Ident(name) if name == "in" => (Binary::In, 3),
        _ => return None,
    })
}

/// The first part of a dotted name.
fn root_of(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(inner, _, false) => root_of(inner),
        _ => None,
    }
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        self.tokens
            .get(self.at)
            .map_or(&Token::End, |(token, _)| token)
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn error(&self, why: &str) -> CompileError {
        let at = self.tokens.get(self.at).map_or(0, |(_, at)| *at);
        CompileError::syntax(self.source, at, why)
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self.peek(), Token::Symbol(found) if *found == symbol)
    }

    fn accept(&mut self, symbol: &str) -> bool {
        let found = self.is(symbol);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &str) -> Result<(), CompileError> {
        if self.accept(symbol) {
            return Ok(());
        }
        Err(self.error(&format!("mismatched input, expecting '{symbol}'")))
    }

    /// One level deeper.
    fn nested<T>(
        &mut self,
        parse: impl FnOnce(&mut Self) -> Result<T, CompileError>,
    ) -> Result<T, CompileError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(CompileError::TooDeep);
        }
        let result = parse(self);
        self.depth -= 1;
        result
    }

    fn expression(&mut self) -> Result<Expr, CompileError> {
        self.nested(|parser| {
            let condition = parser.operators(1)?;
            if !parser.accept("?") {
                return Ok(condition);
            }
            let yes = parser.operators(1)?;
            parser.expect(":")?;
            let no = parser.expression()?;
            Ok(Expr::Conditional(
                Box::new(condition),
                Box::new(yes),
                Box::new(no),
            ))
        })
    }

    /// A chain of operators that bind at least as tightly as `least`. Chains lean to the left:
    /// each operator counts as a level, as walking them takes one.
    fn operators(&mut self, least: u8) -> Result<Expr, CompileError> {
        let before = self.depth;
        let mut left = self.unary()?;
        while let Some((operator, level)) = binary(self.peek()).filter(|(_, l)| *l >= least) {
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return Err(CompileError::TooDeep);
            }
            self.take();
            let right = self.nested(|parser| parser.operators(level + 1))?;
            left = Expr::Binary(operator, Box::new(left), Box::new(right));
        }
        self.depth = before;
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, CompileError> {
        if self.accept("!") {
            return Ok(Expr::Not(Box::new(self.nested(Self::unary)?)));
        }
        if self.is("-") {
            self.take();
            let inner = self.nested(Self::unary)?;
            return Ok(match inner {
                Expr::Literal(Literal::Int(value)) => {
                    Expr::Literal(Literal::Int(value.wrapping_neg()))
                }
                Expr::Literal(Literal::Double(value)) => Expr::Literal(Literal::Double(-value)),
                other => Expr::Negate(Box::new(other)),
            });
        }
        self.postfix()
    }

    fn postfix(&mut self) -> Result<Expr, CompileError> {
        let before = self.depth;
        let mut value = self.primary()?;
        loop {
            if self.accept(".") {
                let optional = self.accept("?");
                let Token::Ident(name) = self.take() else {
                    self.at -= 1;
                    return Err(self.error("mismatched input, expecting a field name"));
                };
                value = if !optional && self.accept("(") {
                    self.call(Some(value), name)?
                } else {
                    Expr::Select(Box::new(value), name, optional)
                };
            } else if self.accept("[") {
                let optional = self.accept("?");
                let index = self.expression()?;
                self.expect("]")?;
                value = Expr::Index(Box::new(value), Box::new(index), optional);
            } else if let Some(root) = root_of(&value).filter(|_| self.is("{")) {
                value = Expr::Message(root, Box::new(self.fields()?));
            } else {
                self.depth = before;
                return Ok(value);
            }
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return Err(CompileError::TooDeep);
            }
        }
    }

    fn primary(&mut self) -> Result<Expr, CompileError> {
        match self.take() {
            Token::Literal(literal) => Ok(Expr::Literal(literal)),
            Token::Symbol("(") => {
                let inner = self.expression()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Symbol("[") => self.list(),
            Token::Symbol("{") => self.map(),
            // An absolute name.
            Token::Symbol(".") => self.primary(),
            Token::Ident(name) if name != "in" => {
                if self.accept("(") {
                    self.call(None, name)
                } else {
                    Ok(Expr::Ident(name))
                }
            }
            _ => {
                self.at -= 1;
                Err(self.error("mismatched input, expecting an expression"))
            }
        }
    }

    fn list(&mut self) -> Result<Expr, CompileError> {
        let mut items = Vec::new();
        while !self.accept("]") {
            let optional = self.accept("?");
            items.push((self.expression()?, optional));
            if !self.accept(",") {
                self.expect("]")?;
                break;
            }
        }
        Ok(Expr::List(items))
    }

    fn map(&mut self) -> Result<Expr, CompileError> {
        let mut entries = Vec::new();
        while !self.accept("}") {
            let optional = self.accept("?");
            let key = self.expression()?;
            self.expect(":")?;
            entries.push((key, self.expression()?, optional));
            if !self.accept(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(Expr::Map(entries))
    }

    /// The fields of a message: a map with constant keys.
    fn fields(&mut self) -> Result<Expr, CompileError> {
        self.expect("{")?;
        let mut entries = Vec::new();
        while !self.accept("}") {
            let optional = self.accept("?");
            let Token::Ident(name) = self.take() else {
                self.at -= 1;
                return Err(self.error("mismatched input, expecting a field name"));
            };
            self.expect(":")?;
            let key = Expr::Literal(Literal::String(unescape(&name)));
            entries.push((key, self.expression()?, optional));
            if !self.accept(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(Expr::Map(entries))
    }

    fn arguments(&mut self) -> Result<Vec<Expr>, CompileError> {
        let mut arguments = Vec::new();
        while !self.accept(")") {
            arguments.push(self.expression()?);
            if !self.accept(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(arguments)
    }

    fn call(&mut self, target: Option<Expr>, name: String) -> Result<Expr, CompileError> {
        let arguments = self.arguments()?;
        match target {
            None if name == "has" => match <[Expr; 1]>::try_from(arguments) {
                Ok([Expr::Select(operand, field, false)]) => Ok(Expr::Has(operand, field)),
                _ => Err(self.error("invalid argument to has() macro")),
            },
            None => Ok(Expr::Call(None, name, arguments)),
            Some(Expr::Ident(namespace)) => {
                let full = format!("{namespace}.{name}");
                if full == "cel.bind" {
                    return self.bind(arguments);
                }
                // A variable may have the name of a namespace.
                match known(&full, false, arguments.len()) {
                    Known::No => self.method(Expr::Ident(namespace), name, arguments),
                    _ => Ok(Expr::Call(None, full, arguments)),
                }
            }
            Some(target) => self.method(target, name, arguments),
        }
    }

    fn bind(&self, arguments: Vec<Expr>) -> Result<Expr, CompileError> {
        match <[Expr; 3]>::try_from(arguments) {
            Ok([Expr::Ident(name), value, body]) => {
                Ok(Expr::Bind(name, Box::new(value), Box::new(body)))
            }
            _ => Err(self.error("cel.bind() takes a name, its value and an expression")),
        }
    }

    /// A call on a value: a macro, or a function.
    fn method(
        &self,
        target: Expr,
        name: String,
        arguments: Vec<Expr>,
    ) -> Result<Expr, CompileError> {
        if matches!(name.as_str(), "optMap" | "optFlatMap") {
            return match <[Expr; 2]>::try_from(arguments) {
                Ok([Expr::Ident(variable), body]) => Ok(Expr::OptionalMap(
                    Box::new(target),
                    variable,
                    Box::new(body),
                    name == "optFlatMap",
                )),
                _ => Err(self.error(&format!("{name}() takes a variable and an expression"))),
            };
        }
        let (what, most) = match name.as_str() {
            "all" => (Macro::All, 3),
            "exists" => (Macro::Exists, 3),
            "exists_one" | "existsOne" => (Macro::ExistsOne, 3),
            "map" => (Macro::Map, 3),
            "filter" => (Macro::Filter, 2),
            "transformList" => (Macro::TransformList, 4),
            "transformMap" => (Macro::TransformMap, 4),
            "transformMapEntry" => (Macro::TransformMapEntry, 4),
            _ => return Ok(Expr::Call(Some(Box::new(target)), name, arguments)),
        };
        let wrong = || self.error(&format!("{name}() takes variables and expressions"));
        if arguments.len() < 2 || arguments.len() > most {
            return Err(wrong());
        }
        let mut arguments = arguments.into_iter();
        let mut variable = || match arguments.next() {
            Some(Expr::Ident(name)) => Ok(name),
            _ => Err(wrong()),
        };
        let first = variable()?;
        let pairs = matches!(
            what,
            Macro::TransformList | Macro::TransformMap | Macro::TransformMapEntry
        );
        let two = pairs || (arguments.len() == 2 && !matches!(what, Macro::Map | Macro::Filter));
        let mut variable = || match arguments.next() {
            Some(Expr::Ident(name)) => Ok(name),
            _ => Err(wrong()),
        };
        let second = if two { Some(variable()?) } else { None };
        let (filter, body) = match (arguments.next(), arguments.next()) {
            (Some(filter), Some(body)) => (Some(filter), body),
            (Some(body), None) => (None, body),
            _ => return Err(wrong()),
        };
        Ok(Expr::Loop(Box::new(Loop {
            what,
            over: target,
            first,
            second,
            filter,
            body,
        })))
    }
}
